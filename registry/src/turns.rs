//! Who may write an upload: one request at a time, and the newest one first.
//!
//! A client whose connection broke comes back while the server still waits for the old one. So a new request does
//! not wait for its turn to end: it ends it. What the old one received is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sealrs_image::digest::Hasher;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use crate::name::{Repository, UploadId};

/// How many uploads are remembered that nobody writes. What is forgotten is read again from its file.
const REMEMBERED: usize = 4096;

type Key = (Repository, UploadId);

/// The uploads that somebody writes, or wrote.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Key, Place>>);

#[derive(Debug)]
struct Place {
    newest: watch::Sender<u64>,
    hasher: Arc<AsyncMutex<Option<Hasher>>>,
}

/// The right to write an upload.
#[derive(Debug)]
pub(crate) struct Turn {
    own: u64,
    newest: watch::Receiver<u64>,
    hasher: OwnedMutexGuard<Option<Hasher>>,
}

impl Turns {
    /// Waits until the upload can be written, and asks whoever writes it to stop.
    pub(crate) async fn take(&self, repository: &Repository, id: &UploadId) -> Turn {
        let (own, newest, hasher) = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if places.len() >= REMEMBERED {
                places.retain(|_, place| Arc::strong_count(&place.hasher) > 1);
            }
            let place = places.entry((repository.clone(), id.clone())).or_insert_with(|| Place {
                newest: watch::Sender::new(0),
                hasher: Arc::default(),
            });
            place.newest.send_modify(|newest| *newest += 1);
            let newest = place.newest.subscribe();
            let own = *newest.borrow();
            (own, newest, Arc::clone(&place.hasher))
        };
        Turn {
            own,
            newest,
            hasher: hasher.lock_owned().await,
        }
    }

    /// Forgets an upload that is no more.
    pub(crate) fn forget(&self, repository: &Repository, id: &UploadId) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.remove(&(repository.clone(), id.clone()));
    }
}

impl Turn {
    /// Waits until another request wants to write.
    pub(crate) async fn is_over(&mut self) {
        let own = self.own;
        if self.newest.wait_for(|newest| *newest > own).await.is_err() {
            // The upload is forgotten: nobody can want it.
            std::future::pending::<()>().await;
        }
    }

    /// What the last writer remembered.
    pub(crate) fn recall(&mut self) -> Option<Hasher> {
        self.hasher.take()
    }

    /// Leaves something for the next writer.
    pub(crate) fn remember(&mut self, hasher: Option<Hasher>) {
        *self.hasher = hasher;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_goes_first() {
        let turns = Arc::new(Turns::default());
        let (name, id): (Repository, _) = ("a".parse().unwrap(), UploadId::random().unwrap());
        let mut first = turns.take(&name, &id).await;
        assert!(first.recall().is_none());
        first.remember(Some(Hasher::new()));
        let second = tokio::spawn({
            let (turns, name, id) = (turns.clone(), name.clone(), id.clone());
            async move { turns.take(&name, &id).await }
        });
        first.is_over().await;
        drop(first);
        let mut second = second.await.unwrap();
        assert!(second.recall().is_some());
        let over = tokio::time::timeout(std::time::Duration::from_millis(20), second.is_over());
        assert!(over.await.is_err(), "nobody else wants to");
        turns.forget(&name, &id);
        assert!(turns.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn idle_ones_are_forgotten_when_there_are_many() {
        let turns = Turns::default();
        let name: Repository = "a".parse().unwrap();
        let busy = UploadId::random().unwrap();
        let turn = turns.take(&name, &busy).await;
        for _ in 0..2 * REMEMBERED {
            drop(turns.take(&name, &UploadId::random().unwrap()).await);
        }
        let places = turns.0.lock().unwrap();
        assert!(places.len() <= REMEMBERED && places.contains_key(&(name, busy)));
        drop((turn, places));
    }
}
