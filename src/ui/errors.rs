//! Errors as a person reads them: message, place, causes, hints.

use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, renderer::DecorStyle};
use anstyle::{AnsiColor, Style};

use crate::error::Error;

const RED: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
const CYAN: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));

/// An error, its place in the user's file, its causes and hints; related errors after it.
/// With terminal styles, which the writer strips where there is no terminal.
pub fn render(error: &Error) -> String {
    let mut text = String::new();
    one(&mut text, error);
    for related in error.related() {
        text.push('\n');
        text.push_str(&render(related));
    }
    text
}

fn one(text: &mut String, error: &Error) {
    match error.snippet() {
        Some(place) => {
            // A span may lie past the end where text was cut off.
            let end = place.span.end.min(place.text.len());
            let start = place.span.start.min(end);
            let report = [Level::ERROR.primary_title(error.message()).element(
                Snippet::source(&*place.text)
                    .path(&place.path)
                    .annotation(AnnotationKind::Primary.span(start..end).label(&place.label)),
            )];
            let renderer = Renderer::styled().decor_style(DecorStyle::Unicode);
            let _ = writeln!(text, "{}", renderer.render(&report));
        }
        None => {
            let _ = writeln!(text, "{RED}error:{RED:#} {}", error.message());
        }
    }
    for cause in error.causes() {
        let _ = writeln!(text, "  because: {cause}");
    }
    for hint in error.hints() {
        let _ = writeln!(text, "{CYAN}hint:{CYAN:#} {hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Snippet as Place;

    fn plain(error: &Error) -> String {
        anstream::adapter::strip_str(&render(error)).to_string()
    }

    #[test]
    fn place_causes_and_hints_are_shown() {
        let error = Error::usage("`x.toml` locks a floating tag")
            .at(Place {
                path: "x.toml".into(),
                text: "a = 1\nvllm = \"x:latest\"\n".into(),
                span: 13..23,
                label: "means something else tomorrow".into(),
            })
            .hint("name a version")
            .because(Error::failed("inner").hint("inner hint"))
            .and([Error::usage("second")]);
        let text = plain(&error);
        assert!(text.starts_with("error: `x.toml` locks a floating tag"), "{text}");
        assert!(text.contains("x.toml:2:8"), "{text}");
        assert!(text.contains("means something else tomorrow"), "{text}");
        assert!(text.contains("because: inner\nhint: name a version\nhint: inner hint\n"), "{text}");
        assert!(text.ends_with("error: second\n"), "{text}");
    }

    #[test]
    fn a_span_out_of_range_is_not_a_panic() {
        let place = Place { path: "x".into(), text: "ab".into(), span: 7..9, label: String::new() };
        assert!(plain(&Error::failed("cut off").at(place)).contains("cut off"));
    }
}
