//! Whether a registry accepts somebody, asked before the credentials are kept.

use reqwest::StatusCode;

use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::remote::auth;
use crate::remote::client::Client;
use crate::remote::credentials::Login;
use crate::remote::endpoint::host_of;
use crate::remote::failure::Failure;
use crate::remote::registry_name::RegistryName;
use crate::remote::wire::{Call, same_origin};

/// What a registry says to a user's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    /// They are right.
    Known,
    /// It lets everybody in, so nobody can tell.
    Everybody,
}

impl Client {
    /// Shows a registry, or its token server, a user's credentials.
    ///
    /// # Errors
    /// [`ErrorKind::Auth`] when it refuses them, [`ErrorKind::NotFound`] when there is no registry, and
    /// [`ErrorKind::Network`].
    pub fn check(&self, registry: &RegistryName, login: &Login) -> Result<Welcome> {
        let checked = self.block_on(self.backoff().run(async || self.show(registry, login).await));
        checked.context(|| format!("cannot log in to {registry}"))
    }

    async fn show(&self, registry: &RegistryName, login: &Login) -> Result<Welcome, Failure> {
        let endpoint = self.endpoint(registry.sample()).await?;
        let challenge = endpoint.challenge();
        let refused = |host: &str| {
            let what = format!("{host} refuses the user `{}`", login.user.escape_debug());
            Error::new(ErrorKind::Auth, what)
                .hint("check the user and the password; many registries want an access token in place of the password")
        };
        let header = auth::proof(self.wire(), &endpoint, challenge.as_ref(), login, refused).await?;
        let response = self
            .wire()
            .send(&Call::get(endpoint.base.clone()), Some(&header))
            .await?;
        match response.status() {
            status if status.is_success() => Ok(match challenge {
                Some(_) => Welcome::Known,
                None => Welcome::Everybody,
            }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if same_origin(response.url(), &endpoint.base) => {
                let words = self.wire().refusal(response).await.error;
                Err(refused(&host_of(&endpoint.base)).because(words).into())
            }
            StatusCode::NOT_FOUND => {
                let failure = self.wire().refusal(response).await;
                Err(failure.hint("check the name: whatever answers there is not a registry"))
            }
            _ => Err(self.wire().refusal(response).await),
        }
    }
}
