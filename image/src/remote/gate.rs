//! How many requests a host gets at once: as many as the user allows, and fewer when the host says that it is too much.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};
use tokio::sync::Notify;

use crate::remote::failure::{Again, Failure};
use crate::remote::retry::LONGEST_ASKED;

/// Answers that come within this time are to requests that were on their way together.
const TOGETHER: Duration = Duration::from_millis(200);

/// The gate before one host, for one direction.
///
/// Additive increase, multiplicative decrease, as TCP does it: half as many after each complaint, one more after as many
/// answers as are allowed at once. A pause that the host asks of one of us is kept by all.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Notify,
    most: usize,
}

#[derive(Debug)]
struct State {
    limit: usize,
    inside: usize,
    /// How many wait for a place.
    waiting: usize,
    /// Answers since the limit changed.
    answers: usize,
    closed_until: Option<Instant>,
}

/// Who waits for a place, for as long as he does.
struct Waiting<'g>(&'g Gate);

impl<'g> Waiting<'g> {
    fn new(gate: &'g Gate) -> Self {
        gate.lock().waiting += 1;
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// The right to one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<Gate>);

impl Gate {
    /// A gate for `most` at once.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let most = most.max(1);
        Arc::new(Self {
            state: Mutex::new(State {
                limit: most,
                inside: 0,
                waiting: 0,
                answers: 0,
                closed_until: None,
            }),
            changed: Notify::new(),
            most,
        })
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Permit {
        let _waiting = Waiting::new(self);
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            match self.closed_until() {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => match self.try_enter() {
                    Some(permit) => return permit,
                    None => changed.await,
                },
            }
        }
    }

    /// A place that nobody waits for, if there is one.
    pub(super) fn spare(self: &Arc<Self>) -> Option<Permit> {
        let wanted = self.lock().waiting > 0;
        if wanted { None } else { self.try_enter() }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        if self.closed_until().is_some() {
            return None;
        }
        let mut state = self.lock();
        (state.inside < state.limit).then(|| {
            state.inside += 1;
            Permit(Arc::clone(self))
        })
    }

    /// Learns from an answer.
    pub(super) fn heed(&self, answer: &Result<Response, Failure>) {
        match answer {
            Ok(_) => self.went_well(),
            Err(failure) => {
                let complaint = matches!(
                    failure.status,
                    Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
                );
                match failure.again {
                    // A longer pause is for the user to decide on, and keeps nobody here.
                    Again::After(pause) if complaint && pause <= LONGEST_ASKED => self.was_too_much(pause),
                    Again::Later if complaint => self.was_too_much(Duration::ZERO),
                    _ => {}
                }
            }
        }
    }

    /// The host answered as it should.
    fn went_well(&self) {
        let mut state = self.lock();
        if state.limit < self.most {
            state.answers += 1;
            if state.answers >= state.limit {
                state.limit += 1;
                state.answers = 0;
            }
        }
    }

    /// The host said that it was too much, and perhaps when to come again.
    fn was_too_much(&self, pause: Duration) {
        let mut state = self.lock();
        let now = Instant::now();
        // Answers to requests that were on their way together are one complaint.
        if state.closed_until.is_none_or(|until| until <= now) {
            state.limit = (state.limit.min(state.inside.max(1)) / 2).max(1);
            state.answers = 0;
        }
        state.closed_until = state.closed_until.max(now.checked_add(pause.max(TOGETHER)));
    }

    fn closed_until(&self) -> Option<Instant> {
        self.lock().closed_until.filter(|until| *until > Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(gate: &Arc<Gate>) -> usize {
        gate.lock().limit
    }

    /// As if the pause were over.
    fn open(gate: &Arc<Gate>) {
        gate.lock().closed_until = None;
    }

    #[test]
    fn complaints_halve_and_answers_raise_again() {
        let gate = Gate::new(8);
        let all: Vec<_> = std::iter::from_fn(|| gate.try_enter()).collect();
        assert_eq!(all.len(), 8);
        gate.was_too_much(Duration::ZERO);
        gate.was_too_much(Duration::ZERO);
        assert_eq!(limit(&gate), 4, "both were on their way together");
        drop(all);
        assert!(gate.try_enter().is_none(), "closed for a moment");
        open(&gate);
        for _ in 0..4 {
            gate.went_well();
        }
        assert_eq!(limit(&gate), 5);
        for _ in 0..100 {
            gate.went_well();
        }
        assert_eq!(limit(&gate), 8);
        for _ in 0..10 {
            gate.was_too_much(Duration::ZERO);
            open(&gate);
        }
        assert_eq!(limit(&gate), 1);
    }

    #[test]
    fn a_pause_that_is_too_long_closes_nothing() {
        let gate = Gate::new(8);
        let error = crate::error::Error::new(crate::error::ErrorKind::Network, "too much");
        let failure = Failure {
            status: Some(StatusCode::TOO_MANY_REQUESTS),
            ..Failure::new(Again::After(Duration::from_secs(3600)), error)
        };
        gate.heed(&Err(failure));
        assert!(gate.try_enter().is_some());
    }

    #[tokio::test]
    async fn a_pause_is_kept_by_all_and_who_waits_comes_before_who_could_use_more() {
        let gate = Gate::new(2);
        let held = (gate.enter().await, gate.enter().await);
        let pause = Duration::from_millis(300);
        gate.was_too_much(pause);
        let began = Instant::now();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter().await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(held);
        open(&gate);
        assert!(gate.spare().is_none(), "somebody waits");
        gate.was_too_much(pause);
        let permit = waiting.await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
        drop(permit);
        open(&gate);
        assert!(gate.spare().is_some());
    }
}
