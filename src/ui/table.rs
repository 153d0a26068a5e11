//! Tables that fit the terminal.

use comfy_table::{ContentArrangement, Table};

/// A borderless table with a header, as wide as the terminal (100 columns where there is none).
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width());
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let text = table.to_string();
    // Trailing blanks only make diffs and copies ugly.
    text.lines().map(|line| line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end())).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    )
}

/// Columns of the terminal on standard output, or 100.
pub fn width() -> u16 {
    columns().filter(|columns| *columns >= 40).unwrap_or(100)
}

/// Columns of the terminal on standard output, at least 20. `None`: there is none, or it does not say; a line is a line.
pub fn terminal_width() -> Option<usize> {
    columns().filter(|columns| *columns > 0).map(|columns| usize::from(columns).max(20))
}

fn columns() -> Option<u16> {
    Some(rustix::termios::tcgetwinsize(std::io::stdout()).ok()?.ws_col)
}
