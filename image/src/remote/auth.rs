//! Answers to challenges: user and password, or a token of the registry's token server, kept until it expires.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::error::{Error, ErrorKind, ResultExt as _};
use crate::reference::Reference;
use crate::remote::challenge::{Bearer, Challenge};
use crate::remote::credentials::{Credentials, Login, Secret};
use crate::remote::endpoint::{Endpoint, host_of};
use crate::remote::failure::{Again, Failure};
use crate::remote::wire::{Call, Wire};

/// A day: no transfer needs one token longer, and a server's number may be absurd.
const LONGEST_LIFE: u64 = 24 * 60 * 60;
/// A token without a word on its life lives this long (Docker's token specification).
const DEFAULT_LIFE: u64 = 60;
/// The largest answer of a token server, in bytes.
const MAX_TOKEN: u64 = 1 << 20;

/// Who we are, and the tokens that we have got for it.
#[derive(Debug)]
pub(super) struct Auth {
    credentials: Arc<Credentials>,
    tokens: Mutex<HashMap<TokenKey, Arc<Slot>>>,
}

/// What is done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access<'a> {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
    /// The same, taking over blobs of another repository of the registry.
    Mount(&'a str),
}

impl Access<'_> {
    /// Whether anything is written.
    pub(super) fn writes(self) -> bool {
        self != Self::Pull
    }

    /// In the words of Docker's token specification.
    fn scopes(self, repository: &Reference) -> Vec<String> {
        let path = repository.path();
        match self {
            Self::Pull => vec![format!("repository:{path}:pull")],
            Self::Push => vec![format!("repository:{path}:pull,push")],
            Self::Mount(from) => vec![
                format!("repository:{path}:pull,push"),
                format!("repository:{from}:pull"),
            ],
        }
    }
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    registry: Url,
    realm: String,
    service: Option<String>,
    scopes: Vec<String>,
}

/// A token that one asks for and many wait for.
#[derive(Debug, Default)]
struct Slot {
    token: tokio::sync::Mutex<Option<Token>>,
    /// How often asking failed, and how it did so last.
    failures: Mutex<(u64, Option<Shared>)>,
}

/// What those who waited are told of a failure. They do not ask again on their own: one wrong password must not look
/// like eight, nor eight wait one after the other for a server that is not there.
#[derive(Debug)]
struct Shared {
    again: Again,
    kind: ErrorKind,
    what: String,
    hint: Option<String>,
}

/// A token, as the header that it goes in. `HeaderValue` hides it from `Debug`.
#[derive(Debug)]
struct Token {
    header: HeaderValue,
    expires: Instant,
}

/// What a token server answers.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Auth {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self {
            credentials: Arc::new(credentials),
            tokens: Mutex::default(),
        }
    }

    /// The `Authorization` that meets `challenge` for `access` to a repository. `refused` is one that the registry has
    /// just not accepted.
    pub(super) async fn authorization(
        &self,
        wire: &Wire,
        endpoint: &Endpoint,
        challenge: &Challenge,
        repository: &Reference,
        access: Access<'_>,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Failure> {
        let bearer = match challenge {
            Challenge::Basic => return self.basic(endpoint, repository, access, refused).await,
            Challenge::Bearer(bearer) => bearer,
        };
        let mut scopes = access.scopes(repository);
        let asked = bearer.scope.iter().flat_map(|scope| scope.split(' '));
        scopes.extend(asked.filter(|scope| !scope.is_empty()).map(str::to_owned));
        scopes.sort();
        scopes.dedup();
        let key = TokenKey {
            registry: endpoint.base.clone(),
            realm: bearer.realm.clone(),
            service: bearer.service.clone(),
            scopes,
        };
        let slot = Arc::clone(
            self.tokens
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key.clone())
                .or_default(),
        );
        let failed_before = slot.failures().0;
        // Whoever comes second waits here for the first one's token.
        let mut token = slot.token.lock().await;
        if let Some(token) = token.as_ref()
            && token.expires > Instant::now()
            && refused != Some(&token.header)
        {
            return Ok(token.header.clone());
        }
        if let (failed, Some(shared)) = &*slot.failures()
            && *failed > failed_before
        {
            return Err(shared.failure());
        }
        let fetched = self
            .fetch(wire, endpoint, bearer, &key.scopes, repository, access)
            .await
            .inspect_err(|failure| slot.remember(failure))?;
        let header = fetched.header.clone();
        *token = Some(fetched);
        Ok(header)
    }

    /// The failure of a request that the registry refused although we had done what it asked for.
    pub(super) async fn denied(&self, host: &str, repository: &Reference, access: Access<'_>) -> Error {
        match self.login(repository).await {
            Ok(login) => self.refusal(host, repository, access, login.as_ref()),
            Err(error) => error,
        }
    }

    async fn basic(
        &self,
        endpoint: &Endpoint,
        repository: &Reference,
        access: Access<'_>,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Failure> {
        let host = host_of(&endpoint.base);
        let login = self.login(repository).await?;
        let Some(Login {
            user,
            secret: Secret::Password(password),
            ..
        }) = &login
        else {
            return Err(self.refusal(&host, repository, access, login.as_ref()).into());
        };
        let header = basic_header(user, password)?;
        if refused == Some(&header) {
            return Err(self.refusal(&host, repository, access, login.as_ref()).into());
        }
        Ok(header)
    }

    async fn login(&self, repository: &Reference) -> Result<Option<Login>, Error> {
        let (credentials, repository) = (Arc::clone(&self.credentials), repository.clone());
        // A helper may take seconds, in which nothing else should stand still.
        tokio::task::spawn_blocking(move || credentials.find(&repository))
            .await
            .or_fail(ErrorKind::Internal, || "the search for credentials broke off")?
    }

    async fn fetch(
        &self,
        wire: &Wire,
        endpoint: &Endpoint,
        bearer: &Bearer,
        scopes: &[String],
        repository: &Reference,
        access: Access<'_>,
    ) -> Result<Token, Failure> {
        let login = self.login(repository).await?;
        let refusal = |host: &str| self.refusal(host, repository, access, login.as_ref());
        fetch_token(wire, &endpoint.base, bearer, scopes, login.as_ref(), refusal).await
    }

    fn refusal(&self, host: &str, repository: &Reference, access: Access<'_>, login: Option<&Login>) -> Error {
        let may = if access.writes() { "write" } else { "read" };
        let registry = repository.host();
        let again = format!("`sealrs login {registry}`");
        match login {
            Some(login) => Error::new(
                ErrorKind::Auth,
                format!(
                    "{host} refuses {} to the user `{}` of {}",
                    repository.repository(),
                    login.user,
                    login.origin
                ),
            )
            .hint(match self.credentials.given(repository) {
                Some(_) => format!("check the name, the password there, and what that user may {may}"),
                None => format!("check the name and what that user may {may}; log in anew with {again}"),
            }),
            None => {
                let looked = match self.credentials.places() {
                    places if places.is_empty() => "no place for credentials is known".to_owned(),
                    places => format!("looked in {places}"),
                };
                Error::new(
                    ErrorKind::Auth,
                    format!(
                        "{host} refuses {} to strangers, and there are no credentials for it",
                        repository.repository()
                    ),
                )
                .hint(format!(
                    "check the name; if it is right, log in with {again} ({looked})"
                ))
            }
        }
    }
}

/// Asks a token server for a token. `refusal` makes the error for its refusal out of its name.
async fn fetch_token(
    wire: &Wire,
    registry: &Url,
    bearer: &Bearer,
    scopes: &[String],
    login: Option<&Login>,
    refusal: impl Fn(&str) -> Error,
) -> Result<Token, Failure> {
    let realm = Url::parse(&bearer.realm).or_fail(ErrorKind::Auth, || {
        format!("{} names a token server that is no URL", host_of(registry))
    })?;
    wire.insecure_hosts().check_step(registry, &realm)?;
    let mut parameters = realm.clone();
    {
        let mut pairs = parameters.query_pairs_mut();
        pairs.extend_pairs(bearer.service.iter().map(|service| ("service", service)));
        pairs.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
    }
    let (call, authorization) = match login.map(|login| (&login.user, &login.secret)) {
        Some((_, Secret::IdentityToken(token))) => (refresh(realm, bearer, scopes, token), None),
        Some((user, Secret::Password(password))) => {
            parameters.query_pairs_mut().append_pair("account", user);
            (Call::get(parameters), Some(basic_header(user, password)?))
        }
        None => (Call::get(parameters), None),
    };
    let asked = Instant::now();
    let response = wire.send(&call, authorization.as_ref()).await?;
    let host = host_of(&call.url);
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            let words = wire.refusal(response).await.error;
            return Err(refusal(&host).because(words).into());
        }
        _ => return Err(wire.refusal(response).await),
    }
    let body = wire.body(response, MAX_TOKEN).await?;
    // The answer is secret, and the parser's message may quote it.
    let answer = serde_json::from_slice::<TokenAnswer>(&body).ok();
    let life = Duration::from_secs(
        answer
            .as_ref()
            .and_then(|answer| answer.expires_in)
            .unwrap_or(DEFAULT_LIFE)
            .min(LONGEST_LIFE),
    );
    let token = answer.and_then(|answer| answer.token.filter(|token| !token.is_empty()).or(answer.access_token));
    let header = token.and_then(|token| secret_header(format!("Bearer {token}")));
    let header = header.ok_or_else(|| {
        Error::new(
            ErrorKind::Auth,
            format!("the token server {host} answered without a token"),
        )
    })?;
    Ok(Token {
        header,
        // Some of it is over when the registry sees the token.
        expires: asked + life.mul_f64(0.9),
    })
}

/// The `Authorization` by which a login proves itself to a registry, for nothing in particular. A registry that asks
/// for nothing gets user and password.
pub(super) async fn proof(
    wire: &Wire,
    endpoint: &Endpoint,
    challenge: Option<&Challenge>,
    login: &Login,
    refusal: impl Fn(&str) -> Error,
) -> Result<HeaderValue, Failure> {
    if let Some(Challenge::Bearer(bearer)) = challenge {
        let asked = bearer.scope.iter().flat_map(|scope| scope.split(' '));
        let scopes: Vec<String> = asked.filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
        let token = fetch_token(wire, &endpoint.base, bearer, &scopes, Some(login), refusal).await?;
        return Ok(token.header);
    }
    match &login.secret {
        Secret::Password(password) => basic_header(&login.user, password),
        Secret::IdentityToken(_) => Err(refusal(&host_of(&endpoint.base)).into()),
    }
}

impl Slot {
    fn failures(&self) -> MutexGuard<'_, (u64, Option<Shared>)> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, failure: &Failure) {
        let causes = failure.error.causes().into_iter();
        let what: Vec<String> = [failure.error.to_string()].into_iter().chain(causes).collect();
        let mut failures = self.failures();
        failures.0 += 1;
        failures.1 = Some(Shared {
            again: failure.again,
            kind: failure.error.kind(),
            what: what.join(": "),
            hint: failure.error.remedy().map(str::to_owned),
        });
    }
}

impl Shared {
    fn failure(&self) -> Failure {
        let failure = Failure::new(self.again, Error::new(self.kind, &self.what));
        match &self.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Asks for a token with an identity token (OAuth2, Docker's specification of it).
fn refresh(realm: Url, bearer: &Bearer, scopes: &[String], token: &str) -> Call {
    // A URL's query is the form's encoding too.
    let mut form = realm.clone();
    form.query_pairs_mut()
        .clear()
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "sealrs")
        .append_pair("service", bearer.service.as_deref().unwrap_or_default())
        .append_pair("scope", &scopes.join(" "))
        .append_pair("refresh_token", token);
    let body = form.query().map(|form| Bytes::from(form.to_owned()));
    Call {
        body,
        ..Call::new(Method::POST, realm)
    }
    .header(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    )
}

fn basic_header(user: &str, password: &str) -> Result<HeaderValue, Failure> {
    secret_header(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        .ok_or_else(|| Error::new(ErrorKind::Internal, "cannot write the authorization").into())
}

fn secret_header(text: String) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
