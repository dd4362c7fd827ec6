//! How many requests a host gets at once: as many as the user allows, and fewer when the host says that it is too much.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};
use tokio::sync::Notify;

use crate::remote::failure::{Again, Failure};

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
    /// Answers since the limit changed.
    answers: usize,
    closed_until: Option<Instant>,
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
                answers: 0,
                closed_until: None,
            }),
            changed: Notify::new(),
            most,
        })
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Permit {
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

    /// A place, if there is one to spare.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Permit> {
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
                    Again::After(pause) if complaint => self.was_too_much(pause),
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
        state.closed_until = state.closed_until.max(now.checked_add(pause));
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
        let permits: Vec<_> = std::iter::from_fn(|| gate.try_enter()).collect();
        permits.len()
    }

    #[test]
    fn complaints_halve_and_answers_raise_again() {
        let gate = Gate::new(8);
        assert_eq!(limit(&gate), 8);
        let all: Vec<_> = std::iter::from_fn(|| gate.try_enter()).collect();
        gate.was_too_much(Duration::ZERO);
        drop(all);
        assert_eq!(limit(&gate), 4);
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
        }
        assert_eq!(limit(&gate), 1);
    }

    #[tokio::test]
    async fn a_pause_is_kept_by_all_and_a_place_goes_to_who_waits() {
        let gate = Gate::new(2);
        let held = (gate.enter().await, gate.enter().await);
        let pause = Duration::from_millis(40);
        gate.was_too_much(pause);
        gate.was_too_much(pause);
        let began = Instant::now();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter().await }
        });
        drop(held);
        let permit = waiting.await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(35), "{:?}", began.elapsed());
        // Both complaints came together: they halved two to one, once.
        assert!(gate.try_enter().is_none());
        drop(permit);
        assert!(gate.try_enter().is_some());
    }
}
