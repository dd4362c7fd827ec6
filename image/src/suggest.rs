//! "Did you mean": the known word that is nearest to a mistyped one.

use crate::reference::Reference;

/// The word of `known` that differs from `word` by the fewest slips (a letter too much, too few, another one, two
/// exchanged), if they are few for its length. Case does not count.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    // Longer words are no slips, and comparing them would take time.
    if length > 64 {
        return None;
    }
    within(&word, known, (length / 3).max(1))
}

/// The image of `known` that is likely meant by `name`: the nearest tag of the same repository, or else a name that is
/// the same but for a slip or two.
pub fn nearest_image<'a>(name: &Reference, known: impl IntoIterator<Item = &'a Reference>) -> Option<&'a Reference> {
    let known: Vec<(&Reference, String)> = known.into_iter().map(|image| (image, image.familiar())).collect();
    let wanted = name.familiar();
    let repository = name.repository();
    let pick = |of_repository: bool, allowed: usize| {
        let candidates = known
            .iter()
            .filter(|(image, _)| !of_repository || image.repository() == repository)
            .map(|(_, familiar)| familiar.as_str());
        let near = within(&wanted, candidates, allowed)?;
        known
            .iter()
            .find(|(_, familiar)| familiar == near)
            .map(|&(image, _)| image)
    };
    pick(true, usize::MAX).or_else(|| pick(false, (wanted.chars().count() / 4).clamp(1, 2)))
}

fn within<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, allowed: usize) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut previous_left = None;
    for (row, left) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        let mut previous_right = None;
        for (column, &right) in right.iter().enumerate() {
            let at = |costs: &[usize], index: usize| costs.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&last, column) + usize::from(left != right))
                .min(at(&last, column + 1) + 1)
                .min(at(&current, column) + 1);
            if previous_left == Some(right) && previous_right == Some(left) {
                cost = cost.min(at(&before_last, column.saturating_sub(1)) + 1);
            }
            current.push(cost);
            previous_right = Some(right);
        }
        before_last = std::mem::replace(&mut last, current);
        previous_left = Some(left);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_word() {
        let known = ["COPY", "CMD", "CMDS", "LAUNCH", "FROM", "APP", "APPCMDS"];
        let table = [
            ("COYP", Some("COPY")),
            ("copyy", Some("COPY")),
            ("FORM", Some("FROM")),
            ("LUNCH", Some("LAUNCH")),
            ("APPCMD", Some("APPCMDS")),
            ("EXPOSE", None),
            ("x", None),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest("a", []), None);
    }

    #[test]
    fn finds_the_nearest_image() {
        let known: Vec<Reference> = [
            "edge/k3s:v1",
            "edge/k3s:v1.31",
            "nginx",
            "registry.example.com/edge/app:v1",
        ]
        .map(|name| name.parse().unwrap())
        .to_vec();
        for (name, near) in [
            ("edge/k3s:v2", Some("edge/k3s:v1")),
            ("edge/k3s:v1.30", Some("edge/k3s:v1.31")),
            ("edge/k3:v1", Some("edge/k3s:v1")),
            ("ngnix", Some("nginx")),
            (
                "registry.exmaple.com/edge/app:v1",
                Some("registry.example.com/edge/app:v1"),
            ),
            ("registry.example.com/other/app:v1", None),
            ("redis", None),
        ] {
            let found = nearest_image(&name.parse().unwrap(), &known).map(Reference::familiar);
            let expected = near.map(|near| near.parse::<Reference>().unwrap().familiar());
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn counts_slips() {
        let table = [
            ("", "", 0),
            ("", "abc", 3),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
        ];
        for (left, right, expected) in table {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }
}
