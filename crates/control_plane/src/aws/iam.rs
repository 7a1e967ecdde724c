//! Who may do what in an account: users, groups, roles and the account's own policies, each as one object in canonical
//! form, without what Amazon makes by itself (ids, dates, counts). No credential is in them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use super::{AwsError, AwsRound, policy};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IamKind {
    /// First: the others are attached to it.
    Policy,
    Role,
    Group,
    User,
}

impl IamKind {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Role => "role",
            Self::Group => "group",
            Self::User => "user",
        }
    }

    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        let all = [Self::Policy, Self::Role, Self::Group, Self::User];
        all.into_iter().find(|kind| kind.word() == word)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IamName {
    pub kind: IamKind,
    pub name: String,
}

impl fmt::Display for IamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)
    }
}

pub type IamObjects = BTreeMap<IamName, Value>;

/// Roles that services make for themselves, with policies that no one else may change.
const OF_SERVICES: &str = "/aws-service-role/";

/// All of an account, by one call.
pub fn read(round: &AwsRound<'_>) -> Result<IamObjects, AwsError> {
    let answer = round.json(&[
        "iam",
        "get-account-authorization-details",
        "--filter",
        "User",
        "Role",
        "Group",
        "LocalManagedPolicy",
    ])?;
    Ok(objects(&answer))
}

fn objects(answer: &Value) -> IamObjects {
    let mut objects = IamObjects::new();
    let mut keep = |list: &str, kind: IamKind, name: &str, object: fn(&Value) -> Value| {
        for found in answer[list].as_array().into_iter().flatten() {
            let is_of_service = found["Path"]
                .as_str()
                .is_some_and(|path| path.starts_with(OF_SERVICES));
            // An ARN ends with the name.
            let of_arn = || found["Arn"].as_str()?.rsplit('/').next();
            let name = found[name].as_str().or_else(of_arn);
            if let Some(name) = name.filter(|_| !is_of_service) {
                let name = name.to_owned();
                objects.insert(IamName { kind, name }, object(found));
            }
        }
    };
    keep("Policies", IamKind::Policy, "PolicyName", of_policy);
    keep("RoleDetailList", IamKind::Role, "RoleName", of_role);
    keep("GroupDetailList", IamKind::Group, "GroupName", of_group);
    keep("UserDetailList", IamKind::User, "UserName", of_user);
    objects
}

fn of_policy(found: &Value) -> Value {
    let versions = found["PolicyVersionList"].as_array().into_iter().flatten();
    let mut versions = versions.filter(|version| version["IsDefaultVersion"] == true);
    let document = versions.next().map(|version| &version["Document"]);
    let mut object = common(found, &["Path", "Arn", "Description"]);
    let document = document.map_or(Value::Null, policy::canonical);
    object.insert("document".to_owned(), document);
    object.into()
}

fn of_role(found: &Value) -> Value {
    let mut object = common(found, &["Path", "Arn"]);
    let trust = policy::canonical(&found["AssumeRolePolicyDocument"]);
    object.insert("trust".to_owned(), trust);
    principal(found, "RolePolicyList", &mut object);
    let profiles = found["InstanceProfileList"]
        .as_array()
        .into_iter()
        .flatten();
    let profiles = profiles.filter_map(|it| it["InstanceProfileName"].as_str());
    put_list(&mut object, "instance_profiles", profiles);
    object.into()
}

fn of_group(found: &Value) -> Value {
    let mut object = common(found, &["Path", "Arn"]);
    principal(found, "GroupPolicyList", &mut object);
    object.into()
}

fn of_user(found: &Value) -> Value {
    let mut object = common(found, &["Path", "Arn"]);
    principal(found, "UserPolicyList", &mut object);
    let groups = found["GroupList"].as_array().into_iter().flatten();
    put_list(&mut object, "groups", groups.filter_map(Value::as_str));
    object.into()
}

/// Fields as Amazon names them, in lower case.
fn common(found: &Value, fields: &[&str]) -> Map<String, Value> {
    let field = |name: &&str| {
        let value = found.get(name)?.clone();
        let is_empty = value.is_null() || value == "";
        (!is_empty).then(|| (name.to_lowercase(), value))
    };
    fields.iter().filter_map(field).collect()
}

/// What roles, groups and users have in common.
fn principal(found: &Value, inline: &str, object: &mut Map<String, Value>) {
    let policies = found[inline].as_array().into_iter().flatten();
    let policy = |it: &Value| {
        let name = it["PolicyName"].as_str()?.to_owned();
        Some((name, policy::canonical(&it["PolicyDocument"])))
    };
    let policies: Map<String, Value> = policies.filter_map(policy).collect();
    object.insert("inline_policies".to_owned(), policies.into());
    let attached = found["AttachedManagedPolicies"].as_array().into_iter();
    let attached = attached.flatten().filter_map(|it| it["PolicyArn"].as_str());
    put_list(object, "attached_policies", attached);
    let boundary = &found["PermissionsBoundary"]["PermissionsBoundaryArn"];
    if boundary.is_string() {
        object.insert("permissions_boundary".to_owned(), boundary.clone());
    }
    let tags = found["Tags"].as_array().into_iter().flatten();
    let tag = |tag: &Value| Some((tag["Key"].as_str()?.to_owned(), tag["Value"].clone()));
    let tags: Map<String, Value> = tags.filter_map(tag).collect();
    object.insert("tags".to_owned(), tags.into());
}

fn put_list<'a>(object: &mut Map<String, Value>, name: &str, items: impl Iterator<Item = &'a str>) {
    let mut items: Vec<&str> = items.collect();
    items.sort_unstable();
    object.insert(name.to_owned(), json!(items));
}

/// An object as it was kept, perhaps changed by hand since.
#[must_use]
pub fn recanonical(mut object: Value) -> Value {
    for field in ["trust", "document"] {
        if let Some(document) = object.get_mut(field) {
            *document = policy::canonical(document);
        }
    }
    if let Some(Value::Object(policies)) = object.get_mut("inline_policies") {
        for document in policies.values_mut() {
            *document = policy::canonical(document);
        }
    }
    object
}

/// What differs between two forms of an object, as an operator would say it.
#[must_use]
pub fn differences(name: &IamName, before: &Value, after: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let list = |value: &Value, field: &str| -> Vec<String> {
        let items = value[field].as_array().into_iter().flatten();
        items
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect()
    };
    let short = |arn: &str| arn.rsplit('/').next().unwrap_or(arn).to_owned();
    for (field, added, removed) in [
        ("attached_policies", "attached to", "detached from"),
        ("instance_profiles", "added to", "removed from"),
        ("groups", "given to", "taken from"),
    ] {
        let (earlier, now) = (list(before, field), list(after, field));
        let what = match field {
            "attached_policies" => "policy",
            "groups" => "group",
            _ => "instance profile",
        };
        let line = |it: &String, how: &str| format!("{what} {} {how} {name}", short(it));
        said.extend(
            now.iter()
                .filter(|it| !earlier.contains(it))
                .map(|it| line(it, added)),
        );
        said.extend(
            earlier
                .iter()
                .filter(|it| !now.contains(it))
                .map(|it| line(it, removed)),
        );
    }
    let empty = Map::new();
    let map = |value: &Value| {
        value["inline_policies"]
            .as_object()
            .unwrap_or(&empty)
            .clone()
    };
    let (earlier, now) = (map(before), map(after));
    for (policy, document) in &now {
        match earlier.get(policy) {
            None => said.push(format!("inline policy {policy} of {name} added")),
            Some(was) if was != document => {
                said.push(format!("inline policy {policy} of {name} changed"));
            }
            Some(_) => {}
        }
    }
    let gone = earlier.keys().filter(|policy| !now.contains_key(*policy));
    said.extend(gone.map(|policy| format!("inline policy {policy} of {name} removed")));
    for (field, words) in [
        ("trust", "who may take"),
        ("document", "what is allowed by"),
        ("permissions_boundary", "the permissions boundary of"),
        ("tags", "tags of"),
        ("path", "the path of"),
        ("description", "the description of"),
    ] {
        if before[field] != after[field] {
            said.push(format!("{words} {name} changed"));
        }
    }
    if said.is_empty() && before != after {
        said.push(format!("{name} changed"));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_amazon_makes_is_not_kept_and_a_change_is_said_in_words() {
        let answer = json!({
            "RoleDetailList": [
                {"RoleName": "api", "RoleId": "AROA1", "Path": "/", "CreateDate": "2026-01-01",
                 "Arn": "arn:aws:iam::1:role/api", "RoleLastUsed": {"Region": "x"},
                 "AssumeRolePolicyDocument": {"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole"}},
                 "AttachedManagedPolicies": [{"PolicyName": "b", "PolicyArn": "arn:aws:iam::1:policy/b"}],
                 "Tags": [{"Key": "team", "Value": "desk"}]},
                {"RoleName": "AWSServiceRoleForRDS", "Path": "/aws-service-role/rds.amazonaws.com/"},
            ],
            "Policies": [{"PolicyName": "b", "Arn": "arn:aws:iam::1:policy/b", "Path": "/", "AttachmentCount": 1,
                "PolicyVersionList": [
                    {"VersionId": "v2", "IsDefaultVersion": true, "Document": {"Statement": []}},
                    {"VersionId": "v1", "IsDefaultVersion": false, "Document": {"Statement": [1]}},
                ]}],
        });
        let objects = objects(&answer);
        let names: Vec<String> = objects.keys().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["policy b", "role api"],
            "those of services are not ours"
        );
        let text = format!("{objects:?}");
        for made in [
            "AROA1",
            "CreateDate",
            "RoleLastUsed",
            "v1",
            "AttachmentCount",
        ] {
            assert!(!text.contains(made), "{made}: {text}");
        }
        let role = objects.keys().last().unwrap();
        let before = &objects[role];
        let check = |change: &dyn Fn(&mut Value), said: &[&str]| {
            let mut after = before.clone();
            change(&mut after);
            assert_eq!(differences(role, before, &after), said);
        };
        check(&|_| {}, &[]);
        check(
            &|it| it["attached_policies"] = json!(["arn:aws:iam::aws:policy/AdministratorAccess"]),
            &[
                "policy AdministratorAccess attached to role api",
                "policy b detached from role api",
            ],
        );
        check(
            &|it| it["inline_policies"]["x"] = json!({}),
            &["inline policy x of role api added"],
        );
        check(
            &|it| it["trust"]["Statement"][0]["Effect"] = json!("Deny"),
            &["who may take role api changed"],
        );
        check(&|it| it["more"] = json!(1), &["role api changed"]);
    }
}
