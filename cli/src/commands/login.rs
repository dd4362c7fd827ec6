//! `sealrs login`

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use clap::Args;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::remote::{Credentials, Login as Proof, RegistryName, Welcome};

use super::remote::Registries;
use crate::printer::Printer;

/// No password is longer; a file that was given by mistake may be.
const MAX_PASSWORD: u64 = 64 << 10;

/// Log in to a registry, for all commands here and for docker.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs login registry.example.com
  sealrs login registry.example.com -u robot --password-stdin <token")]
pub(crate) struct Login {
    /// Registry: HOST or HOST:PORT, `docker.io` for Docker Hub; with a path, for the repositories below it only.
    #[arg(value_name = "REGISTRY")]
    registry: RegistryName,

    /// User; asked for if left out.
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,

    /// Read the password from stdin instead of asking for it.
    #[arg(long, requires = "username")]
    password_stdin: bool,

    #[command(flatten)]
    registries: Registries,
}

impl Login {
    pub(crate) fn run(self, printer: &Printer) -> Result<()> {
        let credentials = Credentials::from_environment()?;
        let client = self.registries.client()?;
        if !self.password_stdin && !std::io::stdin().is_terminal() {
            return Err(Error::new(ErrorKind::Input, "nobody is there to ask for the password")
                .hint("give it with `--username USER --password-stdin <FILE`"));
        }
        let user = match &self.username {
            Some(user) => user.clone(),
            None => ask_user(&self.registry)?,
        };
        let password = if self.password_stdin {
            read_password()?
        } else {
            ask_password()?
        };
        let login = Proof::new(&user, password)?;
        let welcome = client.check(&self.registry, &login)?;
        let place = credentials.store(&self.registry, &login)?;
        let document = serde_json::json!({
            "registry": self.registry.to_string(),
            "username": user,
            "storedIn": place,
            "checked": welcome == Welcome::Known,
        });
        printer.result(&document, |_| {
            let unchecked = match welcome {
                Welcome::Known => "",
                Welcome::Everybody => "; it lets everybody in and did not check the password",
            };
            format!("logged in to {} as {user}, kept in {place}{unchecked}", self.registry)
        })
    }
}

fn ask_user(registry: &RegistryName) -> Result<String> {
    let place = || "cannot ask for the user";
    write!(anstream::stderr(), "User for {registry}: ").or_io(place)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).or_io(place)?;
    Ok(answer.trim().to_owned())
}

fn ask_password() -> Result<String> {
    rpassword::prompt_password("Password: ").or_io(|| "cannot ask for the password")
}

/// All of stdin, without the end of its line.
fn read_password() -> Result<String> {
    let mut text = Vec::new();
    let stdin = std::io::stdin().lock();
    stdin
        .take(MAX_PASSWORD + 1)
        .read_to_end(&mut text)
        .or_io(|| "cannot read the password from stdin")?;
    if text.len() as u64 > MAX_PASSWORD {
        return Err(Error::new(
            ErrorKind::Input,
            "what comes on stdin is too long for a password",
        ));
    }
    let text =
        String::from_utf8(text).map_err(|_| Error::new(ErrorKind::Input, "the password on stdin is not in UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
