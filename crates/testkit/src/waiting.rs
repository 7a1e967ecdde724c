//! Waiting for a condition by asking again. The only place where tests do so: an answer in the end is no answer in
//! time.

use std::time::{Duration, Instant};

/// Much longer than anything takes that a test waits for, also beside four times as many tests as there are cores.
const LONGEST: Duration = Duration::from_secs(150);
/// What is waited for needs the cores more than the question.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks again until the condition holds; `None` when it did not in time.
pub fn within<T>(timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The same for at most so long; then it panics with `what`.
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(LONGEST, condition).unwrap_or_else(|| panic!("not within 150 s: {what}"))
}

/// The same of a question that is itself waited for.
pub async fn eventually_async<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    let held = within_the_longest(condition).await;
    held.unwrap_or_else(|| panic!("not within 150 s: {what}"))
}

/// Asks again until an answer is as it should be, for at most so long; then it panics with `what` and the last answer.
pub async fn answered_async<T: std::fmt::Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    reached: impl Fn(&T) -> bool,
) -> T {
    let mut last = None;
    let answered = within_the_longest(async || {
        let answer = ask().await;
        if reached(&answer) {
            return Some(answer);
        }
        last = Some(answer);
        None
    })
    .await;
    answered.unwrap_or_else(|| panic!("not within 150 s: {what}; the last answer: {last:?}"))
}

async fn within_the_longest<T>(mut condition: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let asking = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LONGEST, asking).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_until_there_is_an_answer_or_no_time() {
        let mut asked = 0;
        let third = within(LONGEST, || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(third, Some(3));
        assert_eq!(within(Duration::ZERO, || None::<u8>), None);
    }
}
