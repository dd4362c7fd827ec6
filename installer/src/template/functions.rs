//! The functions that templates may call: Go's own, as far as configuration files need them, and sealer's two.

use std::cmp::Ordering;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::MAX_SIZE;
use super::value::Value;

/// Calls a function; the error says what is wrong with the call.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match name {
        "not" => one(name, arguments).map(|value| Value::Bool(!value.is_true())),
        "eq" | "ne" => equality(name, arguments),
        "lt" | "le" | "gt" | "ge" => order(name, arguments),
        "len" => length(one(name, arguments)?),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "print" => Ok(Value::Text(print(arguments))),
        "println" => {
            let words: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            Ok(Value::Text(words.join(" ") + "\n"))
        }
        "printf" => printf(arguments).map(Value::Text),
        "b64enc" => Ok(Value::Text(STANDARD.encode(text(name, one(name, arguments)?)?))),
        "b64dec" => {
            let decoded = STANDARD.decode(text(name, one(name, arguments)?)?).ok();
            let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            decoded
                .map(Value::Text)
                .ok_or_else(|| "b64dec: this is not the base64 of a text".to_owned())
        }
        _ => Err(format!(
            "there is no function `{name}`; there are and, or, not, eq, ne, lt, le, gt, ge, len, index, slice, print, \
             printf, println, b64enc and b64dec"
        )),
    }
}

fn one<'v>(name: &str, arguments: &'v [Value]) -> Result<&'v Value, String> {
    match arguments {
        [value] => Ok(value),
        _ => Err(format!("`{name}` takes one value and got {}", arguments.len())),
    }
}

fn text<'v>(name: &str, value: &'v Value) -> Result<&'v str, String> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Nothing => Err(format!("the value that `{name}` is given is not set")),
        other => Err(format!("`{name}` takes a text and got {}", other.sort())),
    }
}

/// `eq a b c`: whether a is b or c. `ne a b`.
fn equality(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let (first, others) = arguments
        .split_first()
        .ok_or_else(|| format!("`{name}` needs two values"))?;
    if others.is_empty() || (name == "ne" && others.len() > 1) {
        return Err(format!("`{name}` needs two values"));
    }
    let mut found = false;
    for other in others {
        let comparable = match (first, other) {
            (Value::Map(_), _) | (_, Value::Map(_)) => false,
            // What is not set equals no value.
            (Value::Nothing, _) | (_, Value::Nothing) => true,
            (first, other) => std::mem::discriminant(first) == std::mem::discriminant(other),
        };
        if !comparable {
            return Err(format!("`{name}` can't compare {} and {}", first.sort(), other.sort()));
        }
        found |= first == other;
    }
    Ok(Value::Bool(found == (name == "eq")))
}

fn order(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let [first, second] = arguments else {
        return Err(format!("`{name}` needs two values"));
    };
    let order = match (first, second) {
        (Value::Integer(first), Value::Integer(second)) => Some(first.cmp(second)),
        (Value::Text(first), Value::Text(second)) => Some(first.cmp(second)),
        (Value::Float(first), Value::Float(second)) => first.partial_cmp(second),
        _ => return Err(format!("`{name}` can't compare {} and {}", first.sort(), second.sort())),
    };
    Ok(Value::Bool(order.is_some_and(|order| match name {
        "lt" => order == Ordering::Less,
        "le" => order != Ordering::Greater,
        "gt" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })))
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::Map(map) => map.len(),
        other => return Err(format!("{} has no length", other.sort())),
    };
    Ok(Value::Integer(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// `index map "key"`, for keys that are no names.
fn index(arguments: &[Value]) -> Result<Value, String> {
    let (first, keys) = arguments.split_first().ok_or("`index` needs a map")?;
    let mut value = first;
    for key in keys {
        value = match (value, key) {
            (Value::Map(map), Value::Text(key)) => map.get(key).unwrap_or(&Value::Nothing),
            (other, _) => return Err(format!("`index` can't look into {} for {}", other.sort(), key.sort())),
        };
    }
    Ok(value.clone())
}

/// `slice text 1 3`, by bytes.
fn slice(arguments: &[Value]) -> Result<Value, String> {
    let (first, bounds) = arguments.split_first().ok_or("`slice` needs a text")?;
    let whole = text("slice", first)?;
    let bound = |value: &Value| match value {
        Value::Integer(at) => usize::try_from(*at).map_err(|_| format!("`slice` can't begin or end at {at}")),
        other => Err(format!("`slice` takes integers and got {}", other.sort())),
    };
    let (from, to) = match bounds {
        [] => (0, whole.len()),
        [from] => (bound(from)?, whole.len()),
        [from, to] => (bound(from)?, bound(to)?),
        _ => return Err("`slice` takes two bounds of a text".to_owned()),
    };
    let part = whole.get(from..to);
    part.map(|part| Value::Text(part.to_owned()))
        .ok_or_else(|| format!("the text has no part from {from} to {to}"))
}

/// Puts a space between two values neither of which is a text.
fn print(arguments: &[Value]) -> String {
    let mut printed = String::new();
    let mut after_text = true;
    for value in arguments {
        let is_text = matches!(value, Value::Text(_));
        if !after_text && !is_text {
            printed.push(' ');
        }
        let _ = write!(printed, "{value}");
        after_text = is_text;
    }
    printed
}

/// The verbs `%s %v %d %q %t %x %%`, with a width, `-` and `0`.
fn printf(arguments: &[Value]) -> Result<String, String> {
    let (format, values) = arguments.split_first().ok_or("`printf` needs a format")?;
    let mut rest = text("printf", format)?;
    let mut values = values.iter();
    let mut printed = String::new();
    while let Some((before, after)) = rest.split_once('%') {
        printed.push_str(before);
        let flags = after.trim_start_matches(['-', '0']);
        let (left, zeros) = {
            let flags = after.get(..after.len() - flags.len()).unwrap_or_default();
            (flags.contains('-'), flags.contains('0') && !flags.contains('-'))
        };
        let verb_on = flags.trim_start_matches(|next: char| next.is_ascii_digit());
        let width = flags.get(..flags.len() - verb_on.len()).unwrap_or_default();
        let width: usize = if width.is_empty() {
            0
        } else {
            width.parse().unwrap_or(usize::MAX)
        };
        if width > 1000 {
            return Err("`printf` pads to 1000 characters at most".to_owned());
        }
        if printed.len() > MAX_SIZE {
            return Err("`printf` makes too much".to_owned());
        }
        let verb = verb_on.chars().next().ok_or("the format of `printf` ends in `%`")?;
        rest = verb_on.get(verb.len_utf8()..).unwrap_or_default();
        if verb == '%' {
            printed.push('%');
            continue;
        }
        let value = values
            .next()
            .ok_or_else(|| format!("`printf` has no value for `%{verb}`"))?;
        let word = match (verb, value) {
            (_, Value::Nothing) => return Err(format!("the value for `%{verb}` is not set")),
            ('v', value) => value.to_string(),
            ('s' | 'q' | 'x', Value::Text(text)) => match verb {
                's' => text.clone(),
                'q' => quoted(text),
                _ => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            },
            ('d', Value::Integer(value)) => value.to_string(),
            ('x', Value::Integer(value)) => format!("{}{:x}", if *value < 0 { "-" } else { "" }, value.unsigned_abs()),
            ('t', Value::Bool(value)) => value.to_string(),
            ('s' | 'd' | 'q' | 'x' | 't', value) => return Err(format!("`%{verb}` can't print {}", value.sort())),
            _ => {
                return Err(format!(
                    "`printf` does not know `%{verb}`; it knows %s %v %d %q %t %x %%"
                ));
            }
        };
        let missing = width.saturating_sub(word.chars().count());
        match (left, zeros, word.strip_prefix('-')) {
            (true, ..) => printed.extend([word.as_str(), &" ".repeat(missing)]),
            (_, true, Some(digits)) if verb != 's' => printed.extend(["-", &"0".repeat(missing), digits]),
            (_, true, _) => printed.extend([&"0".repeat(missing), word.as_str()]),
            _ => printed.extend([&" ".repeat(missing), word.as_str()]),
        }
    }
    printed.push_str(rest);
    if values.next().is_some() {
        return Err("`printf` has more values than its format has places".to_owned());
    }
    Ok(printed)
}

/// A Go string literal.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
