//! The one block of facts of every command: names on the left, what is so on the right.

use super::{COLUMNS, fill, width, word};

/// Between a name and what is so.
const GAP: usize = 2;
/// What is so gets this much at least.
const VALUE_MIN: usize = 24;

/// One thing, a line for each fact about it.
#[derive(Debug, Default)]
pub struct KeyValue {
    rows: Vec<(String, String)>,
}

impl KeyValue {
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty value is shown as a dash: nothing is known, or nothing is there. A name that was there just before is
    /// not repeated.
    pub fn row(&mut self, name: &str, value: impl AsRef<str>) -> &mut Self {
        let value = match value.as_ref().trim() {
            "" => "-".to_owned(),
            value => word(value).into_owned(),
        };
        self.rows.push((word(name).into_owned(), value));
        self
    }

    /// Nothing where there is nothing to say.
    pub fn maybe(&mut self, name: &str, value: Option<impl AsRef<str>>) -> &mut Self {
        if let Some(value) = value {
            self.row(name, value);
        }
        self
    }

    pub fn rows<T: AsRef<str>>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        for value in values {
            self.row(name, value);
        }
        self
    }

    /// With a line break after each line.
    pub fn text(&self) -> String {
        let names = self.rows.iter().map(|(name, _)| width(name)).max();
        let before = names.unwrap_or(0) + GAP;
        let room = COLUMNS.saturating_sub(before).max(VALUE_MIN);
        let mut text = String::new();
        let mut above = "";
        for (name, value) in &self.rows {
            let shown = if name == above { "" } else { name };
            above = name;
            text.push_str(shown);
            text.push_str(&" ".repeat(before - width(shown)));
            text.push_str(&fill(value, room).join(&format!("\n{}", " ".repeat(before))));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_stand_below_each_other_and_none_is_left_out_in_silence() {
        let mut facts = KeyValue::new();
        facts.row("state", "sound").row("newest backup", "");
        facts
            .maybe("trouble", None::<&str>)
            .rows("alarm", ["one", "two"]);
        assert_eq!(
            facts.text(),
            "state          sound\nnewest backup  -\nalarm          one\n               two\n"
        );
    }

    #[test]
    fn a_long_value_goes_on_below_itself() {
        let mut facts = KeyValue::new();
        facts.row("why", "many words ".repeat(20));
        let text = facts.text();
        assert!(text.lines().all(|line| width(line) <= COLUMNS), "{text}");
        let mut below = text.lines().skip(1);
        assert!(
            below.all(|line| line.starts_with("     ") && !line.starts_with("      ")),
            "{text}"
        );
        assert!(text.lines().count() > 2, "{text}");
    }
}
