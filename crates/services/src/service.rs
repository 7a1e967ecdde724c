//! The four services, and which of them a process runs.

use std::collections::BTreeSet;
use std::fmt;

/// One of the four. In the order in which they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    DataService,
    CacheService,
    CalculationService,
    ApiGateway,
}

impl Service {
    pub const ALL: [Service; 4] = [
        Service::DataService,
        Service::CacheService,
        Service::CalculationService,
        Service::ApiGateway,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Service::DataService => "data-service",
            Service::CacheService => "cache-service",
            Service::CalculationService => "calculation-service",
            Service::ApiGateway => "api-gateway",
        }
    }
}

/// The services of one process; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSet(BTreeSet<Service>);

impl ServiceSet {
    pub fn all() -> ServiceSet {
        ServiceSet(Service::ALL.into())
    }

    pub fn has(&self, service: Service) -> bool {
        self.0.contains(&service)
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|service| service.name()).collect()
    }
}

impl fmt::Display for ServiceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(","))
    }
}

impl std::str::FromStr for ServiceSet {
    type Err = String;

    /// `all`, or names separated by commas.
    fn from_str(text: &str) -> Result<ServiceSet, String> {
        if text.trim() == "all" {
            return Ok(ServiceSet::all());
        }
        let find = |name: &str| {
            Service::ALL
                .into_iter()
                .find(|service| service.name() == name.trim())
                .ok_or_else(|| {
                    format!(
                        "{name:?} is no service: name some of {}, or all",
                        ServiceSet::all()
                    )
                })
        };
        Ok(ServiceSet(
            text.split(',').map(find).collect::<Result<_, _>>()?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_services_is_read_strictly() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = text.parse::<ServiceSet>().ok().map(|set| set.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        let all = "data-service,cache-service,calculation-service,api-gateway";
        check("all", Some(all));
        check(
            "api-gateway, data-service",
            Some("data-service,api-gateway"),
        );
        check("gateway", None);
        check("", None);
        check("api-gateway,", None);
    }
}
