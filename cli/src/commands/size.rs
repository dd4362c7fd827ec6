//! Sizes on the command line.

/// Reads a size as GNU tools do: `4GiB` and `4G` are powers of 1024, `4GB` of 1000, `4096` bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let exponent = |unit: &str| ["K", "M", "G", "T"].iter().position(|known| *known == unit);
    let factor = match unit
        .strip_suffix("iB")
        .or_else(|| unit.strip_suffix('B').filter(|unit| !unit.is_empty()))
    {
        _ if unit.is_empty() || unit == "B" => Some(1),
        Some(letter) => exponent(letter).map(|at| {
            let base: u64 = if unit.ends_with("iB") { 1024 } else { 1000 };
            base.pow(at as u32 + 1)
        }),
        None => exponent(unit).map(|at| 1024_u64.pow(at as u32 + 1)),
    };
    let size = number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    match size {
        Some(0) => Err("it must be more than 0".to_owned()),
        Some(size) => Ok(size),
        None => Err("write a number with KiB, MiB, GiB or TiB, for instance 4GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_those_of_gnu_tools() {
        for (text, expected) in [
            ("4096", 4096),
            ("7B", 7),
            ("1K", 1024),
            ("4GiB", 4 << 30),
            ("4G", 4 << 30),
            ("4GB", 4_000_000_000),
            ("650MB", 650_000_000),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "0",
            "0GiB",
            "GiB",
            "-1",
            "1.5GiB",
            "4gib",
            "4 GiB",
            "1EiB",
            "99999999999TiB",
            "1iB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
