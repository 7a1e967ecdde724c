//! What the comparison of the engine's own tables found, as a check among others.

pub const SCHEMA: &str = "schema";
/// How many findings are named in a sentence.
const NAMED: usize = 20;

pub fn schema_check(report: &services::SchemaReport) -> assurance::verification::Check {
    use assurance::verification::Check;
    let named: Vec<String> = report
        .findings
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    let detail = serde_json::json!({
        "version": report.version, "newest": report.newest, "compared": report.compared, "wrong": report.findings.len(), "named": named,
    });
    let mut check = match report.findings.len() {
        0 => Check::passed(SCHEMA, detail),
        1 => Check::failed(SCHEMA, named.join("; "), detail),
        all => Check::failed(
            SCHEMA,
            format!("{all} findings: {}", named.join("; ")),
            detail,
        ),
    };
    check.warnings.clone_from(&report.notes);
    check
}
