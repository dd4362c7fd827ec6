//! When a failed request is tried again, and after how long a pause.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::error::{Context as _, Result};
use crate::remote::failure::{Again, Failure};

/// A server that asks for a longer pause than this gets none: the user decides.
pub(super) const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// How often and how patiently.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    /// Attempts in all, the first one included.
    pub(super) attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub(super) first: Duration,
    /// No pause is longer than this, unless the server asks for it.
    pub(super) longest: Duration,
    /// A server that asks for a longer pause than this gets none: the user decides.
    pub(super) longest_asked: Duration,
}

impl Backoff {
    /// Runs `attempt` until it succeeds, fails for good, or has had its number of attempts.
    pub(super) async fn run<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T> {
        let mut failed = 0;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => {
                    failed += 1;
                    self.pause(failed, failure).await?;
                }
            }
        }
    }

    /// Waits after the `failed`-th failure in a row; gives the failure back when there is no sense in going on.
    pub(super) async fn pause(&self, failed: u32, failure: Failure) -> Result<()> {
        let asked = match failure.again {
            Again::Never => return Err(failure.error),
            Again::Later => Duration::ZERO,
            Again::After(pause) if pause > self.longest_asked => {
                let seconds = pause.as_secs();
                return Err(failure.error).context(|| format!("the server wants no further request for {seconds} s"));
            }
            Again::After(pause) => pause,
        };
        if failed >= self.attempts {
            return Err(failure.error).context(|| format!("{failed} attempts failed"));
        }
        tokio::time::sleep(asked.max(self.own_pause(failed))).await;
        Ok(())
    }

    /// Doubles each time, and is between half of that and the whole, so that many clients do not come back at once.
    fn own_pause(&self, failed: u32) -> Duration {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(failed.saturating_sub(1)));
        let most = doubled.min(self.longest);
        // Each `RandomState` has its own keys: as random as jitter needs.
        let random = RandomState::new().hash_one(0u8) % 1024;
        most / 2 + most.mul_f64(random as f64 / 2048.0)
    }
}

/// The pause that a `Retry-After` header asks for: seconds, or a date (RFC 9110 section 10.2.3).
pub(super) fn retry_after(header: &str, now: jiff::Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(Duration::try_from(then.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    const QUICK: Backoff = Backoff {
        attempts: 4,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(2),
        longest_asked: Duration::from_millis(20),
    };

    fn run(again: Again, backoff: Backoff) -> (u32, Error) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let mut attempts = 0;
        let error = runtime
            .block_on(backoff.run(async || {
                attempts += 1;
                Err::<(), _>(Failure::new(again, Error::new(ErrorKind::Network, "broken")))
            }))
            .unwrap_err();
        (attempts, error)
    }

    #[test]
    fn tries_again_only_what_may_pass() {
        let (attempts, error) = run(Again::Later, QUICK);
        assert_eq!((attempts, error.to_string().as_str()), (4, "4 attempts failed"));
        assert_eq!(error.causes(), ["broken"]);
        let (attempts, error) = run(Again::Never, QUICK);
        assert_eq!((attempts, error.to_string().as_str()), (1, "broken"));
        let (attempts, _) = run(Again::After(Duration::from_millis(2)), QUICK);
        assert_eq!(attempts, 4);
        let (attempts, error) = run(Again::After(Duration::from_secs(3600)), QUICK);
        assert_eq!(attempts, 1);
        assert!(error.to_string().contains("3600 s"), "{error:?}");
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_differ() {
        let backoff = Backoff {
            attempts: 6,
            first: Duration::from_millis(200),
            longest: Duration::from_secs(1),
            longest_asked: Duration::from_secs(60),
        };
        for (failed, most) in [(1, 200), (2, 400), (3, 800), (4, 1000), (40, 1000)] {
            let pauses: Vec<u128> = (0..50).map(|_| backoff.own_pause(failed).as_millis()).collect();
            assert!(
                pauses.iter().all(|pause| (most / 2..=most).contains(pause)),
                "{failed}: {pauses:?}"
            );
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "no jitter: {pauses:?}");
        }
    }

    #[test]
    fn reads_both_forms_of_retry_after() {
        let now: jiff::Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        for (header, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(header, now), seconds.map(Duration::from_secs), "{header}");
        }
    }
}
