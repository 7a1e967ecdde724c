//! Numbers that somebody wrote as text: a cell of a file, a parameter of a query, a string in JSON. A number of JSON or a typed column
//! has one meaning whatever its spelling, and does not come here.

/// Enough of a number to recognise it.
const SHOWN_CHARACTERS: usize = 40;

/// Why the text is no number that everybody reads alike; `None`: it is one, or none at all. Exactly three noughts after the only
/// point (`1.000`) are thousands to half of the world and decimals to the other half.
pub(crate) fn ambiguity(text: &str) -> Option<String> {
    let (whole, decimals) = text.split_once('.')?;
    if decimals != "000" {
        return None;
    }
    let whole: String = whole.chars().take(SHOWN_CHARACTERS).collect();
    Some(format!(
        "{whole}.000 can be read as {whole} and as {whole}000: write the one that is meant, without the point"
    ))
}

#[cfg(test)]
mod tests {
    use super::ambiguity;

    #[test]
    fn text_that_two_people_read_differently_is_told_from_text_that_all_read_alike() {
        for text in ["1.000", "250.000", "-1.000", "0.000", "1234.000"] {
            assert!(ambiguity(text).is_some(), "{text}");
        }
        for text in [
            "1",
            "1000",
            "30.0",
            "30.00",
            "1.0000",
            "2500.5000",
            "1.500",
            "0.0001000",
            "1.000.000",
            "1,000",
            "1.000 ",
            "",
            ".",
            "x",
        ] {
            assert_eq!(ambiguity(text), None, "{text}");
        }
        assert_eq!(
            ambiguity("250.000").as_deref(),
            Some(
                "250.000 can be read as 250 and as 250000: write the one that is meant, without the point"
            )
        );
    }
}
