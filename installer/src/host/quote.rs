//! Arguments as one line for the host's shell, which is all that SSH can carry.

use sealrs_image::error::{Error, ErrorKind, Result};

/// The line that makes a POSIX shell run `argv` as it is.
pub(super) fn line(argv: &[String]) -> Result<String> {
    if let Some(bad) = argv.iter().find(|argument| argument.contains('\0')) {
        return Err(Error::new(
            ErrorKind::Input,
            format!("the argument {bad:?} has a zero byte"),
        ));
    }
    Ok(argv.iter().map(|argument| word(argument)).collect::<Vec<_>>().join(" "))
}

/// Backslashes stand outside the quotes: fish takes them as more than themselves within.
fn word(argument: &str) -> String {
    let mut word = String::from("'");
    for character in argument.chars() {
        match character {
            '\'' | '\\' => word.extend(["'\\", character.encode_utf8(&mut [0; 4]), "'"]),
            _ => word.push(character),
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_back_what_was_quoted(argv in prop::collection::vec("[^\0]{0,12}", 1..5)) {
            let mut all = vec!["printf".to_owned(), r"%s\037".to_owned()];
            all.extend(argv.iter().map(|argument| argument.replace('\u{1f}', "")));
            let output = std::process::Command::new("sh").arg("-c").arg(line(&all).unwrap()).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let read: Vec<&str> = text.strip_suffix('\u{1f}').unwrap().split('\u{1f}').collect();
            prop_assert_eq!(read, all[2..].iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    #[test]
    fn other_login_shells_read_back_the_same() {
        let hard = ["it's", r"a\'b\\c\", "$HOME `id` \"!\" *", "", "line\nline", "{a,b} ~ #"];
        let mut all = vec!["printf".to_owned(), r"%s\037".to_owned()];
        all.extend(hard.iter().map(|&word| word.to_owned()));
        for shell in ["bash", "dash", "zsh", "fish"] {
            let shell_line = std::process::Command::new(shell)
                .arg("-c")
                .arg(line(&all).unwrap())
                .output();
            let Ok(output) = shell_line else {
                println!("skipped: {shell} is not installed");
                continue;
            };
            let text = String::from_utf8(output.stdout).unwrap();
            let read: Vec<&str> = text.strip_suffix('\u{1f}').unwrap().split('\u{1f}').collect();
            assert_eq!(read, hard, "{shell}");
        }
    }

    #[test]
    fn a_zero_byte_is_refused() {
        assert!(line(&["a\0b".to_owned()]).is_err());
    }
}
