//! The `Range` header: which bytes of a blob are wanted (RFC 9110, section 14).

/// What a `Range` header means for a body of a certain size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: there is no range, or one that a server may ignore.
    All,
    /// Part of it. `length` is not 0.
    Part { offset: u64, length: u64 },
    /// Bytes that it does not have.
    Nothing,
}

impl Wanted {
    /// Reads the header's value. Several ranges at once and other units are ignored, as is anything malformed.
    pub(crate) fn parse(header: Option<&str>, size: u64) -> Self {
        let range = header
            .and_then(|value| value.trim().strip_prefix("bytes="))
            .and_then(|range| range.trim().split_once('-'));
        let Some((first, last)) = range else {
            return Self::All;
        };
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first > last => Self::Nothing,
            (Some(first), _) if first >= size => {
                if last.is_empty() || number(last).is_some() {
                    Self::Nothing
                } else {
                    Self::All
                }
            }
            (Some(offset), Some(last)) => Self::Part {
                offset,
                length: last.min(size - 1) - offset + 1,
            },
            (Some(offset), None) if last.is_empty() => Self::Part {
                offset,
                length: size - offset,
            },
            (None, Some(count)) if first.is_empty() => match count.min(size) {
                0 => Self::Nothing,
                length => Self::Part {
                    offset: size - length,
                    length,
                },
            },
            _ => Self::All,
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |offset, length| Wanted::Part { offset, length };
        for (header, size, wanted) in [
            ("bytes=0-0", 10, part(0, 1)),
            ("bytes=0-9", 10, part(0, 10)),
            ("bytes=3-99", 10, part(3, 7)),
            ("bytes=3-", 10, part(3, 7)),
            ("bytes=-4", 10, part(6, 4)),
            ("bytes=-99", 10, part(0, 10)),
            ("bytes=9-18446744073709551615", 10, part(9, 1)),
            ("bytes=10-", 10, Wanted::Nothing),
            ("bytes=10-11", 10, Wanted::Nothing),
            ("bytes=-0", 10, Wanted::Nothing),
            ("bytes=0-", 0, Wanted::Nothing),
            ("bytes=-1", 0, Wanted::Nothing),
            ("bytes=5-3", 10, Wanted::Nothing),
            ("bytes=15-13", 10, Wanted::Nothing),
            ("bytes=0-1,4-5", 10, Wanted::All),
            ("bytes=10-x", 10, Wanted::All),
            ("bytes=-", 10, Wanted::All),
            ("bytes=+1-2", 10, Wanted::All),
            ("bytes=99999999999999999999-", 10, Wanted::All),
            ("lines=1-2", 10, Wanted::All),
            ("", 10, Wanted::All),
        ] {
            assert_eq!(Wanted::parse(Some(header), size), wanted, "{header} of {size}");
        }
        assert_eq!(Wanted::parse(None, 10), Wanted::All);
    }
}
