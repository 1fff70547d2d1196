//! What differs between the lines that were expected and those that came.

/// A line of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'l> {
    Both(&'l str),
    Expected(&'l str),
    Came(&'l str),
}

/// The fewest lines to take out and to put in, in order. Takes time and memory by the product of both lengths, and is
/// made for what people write by hand.
pub(super) fn diff<'l>(expected: &'l [String], came: &'l [String]) -> Vec<Line<'l>> {
    // How long the longest common subsequence is of what is left of each, from the end backwards.
    let mut common = vec![vec![0_usize; came.len() + 1]; expected.len() + 1];
    for (i, left) in expected.iter().enumerate().rev() {
        for (j, right) in came.iter().enumerate().rev() {
            common[i][j] =
                if left == right { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    loop {
        match (expected.get(i), came.get(j)) {
            (None, None) => return lines,
            (Some(left), Some(right)) if left == right => {
                lines.push(Line::Both(left));
                (i, j) = (i + 1, j + 1);
            }
            (Some(left), right) if right.is_none() || common[i + 1][j] >= common[i][j + 1] => {
                lines.push(Line::Expected(left));
                i += 1;
            }
            (_, Some(right)) => {
                lines.push(Line::Came(right));
                j += 1;
            }
            (Some(_), None) => unreachable!("the arm before takes it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    fn shown(expected: &str, came: &str) -> String {
        let (expected, came) = (lines(expected), lines(came));
        let shown = diff(&expected, &came).into_iter().map(|line| match line {
            Line::Both(line) => format!(" {line}"),
            Line::Expected(line) => format!("-{line}"),
            Line::Came(line) => format!("+{line}"),
        });
        shown.collect()
    }

    #[test]
    fn what_is_common_is_kept_and_what_was_expected_comes_first() {
        assert_eq!(shown("", ""), "");
        assert_eq!(shown("abc", "abc"), " a b c");
        assert_eq!(shown("abc", "axc"), " a-b+x c");
        assert_eq!(shown("ab", "b"), "-a b");
        assert_eq!(shown("b", "bc"), " b+c");
        assert_eq!(shown("abcd", "xbdy"), "-a+x b-c d+y");
    }

    proptest! {
        /// Either side can be read off it, in order.
        #[test]
        fn both_sides_are_in_it(expected in "[ab]{0,8}", came in "[ab]{0,8}") {
            let (expected, came) = (lines(&expected), lines(&came));
            let lines = diff(&expected, &came);
            let side = |other: fn(&Line<'_>) -> bool| -> Vec<String> {
                let own = lines.iter().filter(|line| !other(line));
                own.map(|&(Line::Both(line) | Line::Expected(line) | Line::Came(line))| line.to_owned()).collect()
            };
            prop_assert_eq!(side(|line| matches!(line, Line::Came(_))), &expected[..]);
            prop_assert_eq!(side(|line| matches!(line, Line::Expected(_))), &came[..]);
        }
    }
}
