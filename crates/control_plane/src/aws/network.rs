//! The network of an account in one region: VPCs, subnets, route tables, security groups and network ACLs, each as one
//! object in canonical form, and what changed between two forms in the words of those who run it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{AwsError, AwsRound};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkPart {
    /// As documents are named.
    pub word: &'static str,
    pub call: &'static str,
    list: &'static str,
    id: &'static str,
}

pub const PARTS: [NetworkPart; 5] = [
    part("vpc", "describe-vpcs", "Vpcs", "VpcId"),
    part("subnet", "describe-subnets", "Subnets", "SubnetId"),
    part(
        "route_table",
        "describe-route-tables",
        "RouteTables",
        "RouteTableId",
    ),
    part(
        "security_group",
        "describe-security-groups",
        "SecurityGroups",
        "GroupId",
    ),
    part(
        "network_acl",
        "describe-network-acls",
        "NetworkAcls",
        "NetworkAclId",
    ),
];

/// They change by themselves.
const NOT_KEPT: [&str; 2] = ["AvailableIpAddressCount", "State"];

const fn part(
    word: &'static str,
    call: &'static str,
    list: &'static str,
    id: &'static str,
) -> NetworkPart {
    NetworkPart {
        word,
        call,
        list,
        id,
    }
}

/// By id.
pub fn read(round: &AwsRound<'_>, part: NetworkPart) -> Result<BTreeMap<String, Value>, AwsError> {
    let answer = round.json(&["ec2", part.call])?;
    let found = answer[part.list].as_array().into_iter().flatten();
    let object = |it: &Value| Some((it[part.id].as_str()?.to_owned(), canonical(it)));
    Ok(found.filter_map(object).collect())
}

/// No list of a network has an order.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(name, _)| !NOT_KEPT.contains(&name.as_str()));
            let field = |(name, value): (&String, &Value)| (name.clone(), canonical(value));
            Value::Object(kept.map(field).collect())
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(canonical).collect();
            items.sort_by_cached_key(crate::kubernetes::bytes);
            Value::Array(items)
        }
        other => other.clone(),
    }
}

/// `sg-0a1b (db)`
#[must_use]
pub fn shown(id: &str, object: &Value) -> String {
    let tags = object["Tags"].as_array().into_iter().flatten();
    let mut names = tags.filter(|tag| tag["Key"] == "Name");
    let name = names.next().map(|tag| &tag["Value"]);
    match name.unwrap_or(&object["GroupName"]).as_str() {
        Some(name) if !name.is_empty() => format!("{id} ({name})"),
        _ => id.to_owned(),
    }
}

/// What differs, a line each. `word`: of the part.
#[must_use]
pub fn differences(word: &str, id: &str, before: &Value, after: &Value) -> Vec<String> {
    let shown = shown(id, after);
    let mut said = Vec::new();
    let mut told = BTreeSet::from(["Tags"]);
    match word {
        "security_group" => {
            told.extend(["IpPermissions", "IpPermissionsEgress"]);
            for (field, outwards) in [("IpPermissions", ""), ("IpPermissionsEgress", " outwards")] {
                let (earlier, now) = (rules(&before[field]), rules(&after[field]));
                for (ports, peer) in now.difference(&earlier) {
                    said.push(format!("{ports}{outwards} opened to {peer} in {shown}"));
                }
                for (ports, peer) in earlier.difference(&now) {
                    said.push(format!("{ports}{outwards} closed to {peer} in {shown}"));
                }
            }
        }
        "route_table" => {
            told.extend(["Routes", "Associations"]);
            let of = |value: &Value, line: fn(&Value) -> Option<String>| -> BTreeSet<String> {
                let items = value.as_array().into_iter().flatten();
                items.filter_map(line).collect()
            };
            for (field, line) in [
                ("Routes", route as fn(&Value) -> Option<String>),
                ("Associations", association),
            ] {
                let (earlier, now) = (of(&before[field], line), of(&after[field], line));
                said.extend(
                    now.difference(&earlier)
                        .map(|it| format!("{it} added to {shown}")),
                );
                let gone = earlier.difference(&now);
                said.extend(gone.map(|it| format!("{it} removed from {shown}")));
            }
        }
        "network_acl" => {
            told.insert("Entries");
            let of = |value: &Value| -> BTreeSet<String> {
                let entries = value["Entries"].as_array().into_iter().flatten();
                entries.map(entry).collect()
            };
            let (earlier, now) = (of(before), of(after));
            said.extend(
                now.difference(&earlier)
                    .map(|it| format!("{it} added to {shown}")),
            );
            let gone = earlier.difference(&now);
            said.extend(gone.map(|it| format!("{it} removed from {shown}")));
        }
        _ => {}
    }
    let empty = serde_json::Map::new();
    let fields = |value: &'_ Value| value.as_object().unwrap_or(&empty).clone();
    let (earlier, now) = (fields(before), fields(after));
    let names: BTreeSet<&String> = earlier.keys().chain(now.keys()).collect();
    let plain = word.replace('_', " ");
    for name in names {
        if told.contains(name.as_str()) || earlier.get(name) == now.get(name) {
            continue;
        }
        let text = |value: Option<&Value>| match value {
            None => "nothing".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
            Some(_) => "another value".to_owned(),
        };
        let (was, is) = (text(earlier.get(name)), text(now.get(name)));
        said.push(format!(
            "{name} of {plain} {shown} changed from {was} to {is}"
        ));
    }
    if before["Tags"] != after["Tags"] {
        said.push(format!("tags of {plain} {shown} changed"));
    }
    said
}

/// (`port 5432`, `0.0.0.0/0`), one for each port range and peer.
fn rules(permissions: &Value) -> BTreeSet<(String, String)> {
    let mut rules = BTreeSet::new();
    for permission in permissions.as_array().into_iter().flatten() {
        let ports = ports(permission);
        for (list, field) in [
            ("IpRanges", "CidrIp"),
            ("Ipv6Ranges", "CidrIpv6"),
            ("UserIdGroupPairs", "GroupId"),
            ("PrefixListIds", "PrefixListId"),
        ] {
            let peers = permission[list].as_array().into_iter().flatten();
            let peers = peers.filter_map(|peer| peer[field].as_str());
            rules.extend(peers.map(|peer| (ports.clone(), peer.to_owned())));
        }
    }
    rules
}

fn ports(permission: &Value) -> String {
    let protocol = match permission["IpProtocol"].as_str().unwrap_or_default() {
        "-1" => return "all traffic".to_owned(),
        "tcp" => "",
        protocol => &format!("{protocol} "),
    };
    match (
        permission["FromPort"].as_i64(),
        permission["ToPort"].as_i64(),
    ) {
        (Some(0), Some(65535)) => format!("every {protocol}port"),
        (Some(-1), _) | (None, _) => format!("all {protocol}traffic"),
        (Some(from), Some(to)) if from != to => format!("{protocol}ports {from}-{to}"),
        (Some(from), _) => format!("{protocol}port {from}"),
    }
}

fn route(route: &Value) -> Option<String> {
    let field = |names: &[&str]| -> Option<String> {
        let mut values = names.iter().filter_map(|name| route[*name].as_str());
        values.next().map(str::to_owned)
    };
    let to = field(&[
        "DestinationCidrBlock",
        "DestinationIpv6CidrBlock",
        "DestinationPrefixListId",
    ])?;
    let by = field(&[
        "GatewayId",
        "NatGatewayId",
        "TransitGatewayId",
        "VpcPeeringConnectionId",
        "EgressOnlyInternetGatewayId",
        "NetworkInterfaceId",
        "InstanceId",
        "LocalGatewayId",
        "CarrierGatewayId",
    ]);
    Some(format!(
        "route to {to} by {}",
        by.as_deref().unwrap_or("nothing")
    ))
}

fn association(association: &Value) -> Option<String> {
    let subnet = association["SubnetId"].as_str();
    let gateway = association["GatewayId"].as_str();
    let of = subnet.or(gateway);
    match (of, association["Main"].as_bool()) {
        (Some(of), _) => Some(of.to_owned()),
        (None, Some(true)) => Some("the VPC as its main table".to_owned()),
        _ => None,
    }
}

fn entry(entry: &Value) -> String {
    let field = |name: &str| entry[name].as_str().unwrap_or_default();
    let direction = match entry["Egress"].as_bool() {
        Some(true) => "outwards",
        _ => "inwards",
    };
    let range = &entry["PortRange"];
    let ports = match (range["From"].as_i64(), range["To"].as_i64()) {
        (Some(from), Some(to)) if from == to => format!(" port {from}"),
        (Some(from), Some(to)) => format!(" ports {from}-{to}"),
        _ => String::new(),
    };
    let cidr = match field("CidrBlock") {
        "" => field("Ipv6CidrBlock"),
        cidr => cidr,
    };
    format!(
        "rule {} ({} {direction} protocol {}{ports} {cidr})",
        entry["RuleNumber"],
        field("RuleAction"),
        field("Protocol"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_said_as_an_operator_says_it() {
        let check = |word: &str, before: Value, after: Value, said: &[&str]| {
            let (before, after) = (canonical(&before), canonical(&after));
            assert_eq!(differences(word, "x-1", &before, &after), said);
        };
        let group = |ports: Value| json!({"GroupName": "db", "IpPermissions": ports});
        let open = |from: i64, to: i64, protocol: &str, range: &str| {
            let ranges = json!([{ "CidrIp": range }]);
            json!({"FromPort": from, "ToPort": to, "IpProtocol": protocol, "IpRanges": ranges})
        };
        check(
            "security_group",
            group(json!([open(5432, 5432, "tcp", "10.0.0.0/8")])),
            group(json!([
                open(5432, 5432, "tcp", "0.0.0.0/0"),
                open(53, 53, "udp", "10.0.0.0/8"),
                {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-2", "Description": "x"}]},
            ])),
            &[
                "all traffic opened to sg-2 in x-1 (db)",
                "port 5432 opened to 0.0.0.0/0 in x-1 (db)",
                "udp port 53 opened to 10.0.0.0/8 in x-1 (db)",
                "port 5432 closed to 10.0.0.0/8 in x-1 (db)",
            ],
        );
        // Two ranges in one rule, or two rules, in any order: the same.
        check(
            "security_group",
            group(json!([open(1, 2, "tcp", "a"), open(1, 2, "tcp", "b")])),
            group(json!([{"FromPort": 1, "ToPort": 2, "IpProtocol": "tcp",
                "IpRanges": [{"CidrIp": "b"}, {"CidrIp": "a"}]}])),
            &[],
        );
        let table = |gateway: &str| {
            json!({"Tags": [{"Key": "Name", "Value": "main"}],
                "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": gateway, "State": "active"}]})
        };
        check(
            "route_table",
            table("nat-1"),
            table("igw-1"),
            &[
                "route to 0.0.0.0/0 by igw-1 added to x-1 (main)",
                "route to 0.0.0.0/0 by nat-1 removed from x-1 (main)",
            ],
        );
        check(
            "subnet",
            json!({"MapPublicIpOnLaunch": false, "AvailableIpAddressCount": 250}),
            json!({"MapPublicIpOnLaunch": true, "AvailableIpAddressCount": 249}),
            &["MapPublicIpOnLaunch of subnet x-1 changed from false to true"],
        );
        check(
            "network_acl",
            json!({"Entries": []}),
            json!({"Entries": [{"RuleNumber": 100, "RuleAction": "allow", "Egress": false, "Protocol": "6",
                "CidrBlock": "0.0.0.0/0", "PortRange": {"From": 22, "To": 22}}]}),
            &["rule 100 (allow inwards protocol 6 port 22 0.0.0.0/0) added to x-1"],
        );
    }
}
