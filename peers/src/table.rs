//! Tables, as Markdown.

/// A table whose columns line up in the source as well: the first to the left, the others to the right.
pub(crate) fn table(head: &[&str], lines: &[Vec<String>]) -> String {
    let widest = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.chain([head[column].len(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<_> = (0..head.len()).map(widest).collect();
    let row = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths
        .iter()
        .enumerate()
        .map(|(column, &width)| if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) });
    let rule = format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
    let rows = lines.iter().map(|line| row(line.iter().map(String::as_str).collect()));
    [row(head.to_vec()), rule].into_iter().chain(rows).collect()
}
