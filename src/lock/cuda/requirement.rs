//! The grammar of `NVIDIA_REQUIRE_*`: blanks are OR, commas AND, each term `PROPERTY OPERATOR VALUE`; several
//! variables are all needed (nvidia-container-toolkit, `internal/requirements`).

use std::collections::BTreeMap;

use super::version::{Driver, Operator, Range, Version};

/// What a requirement is held against.
pub(super) struct Properties<'a> {
    /// The driver, where it is known.
    pub(super) driver: Option<&'a Driver>,
    /// The CUDA versions the driver may offer.
    pub(super) cuda: Option<Range>,
    /// Compute capability.
    pub(super) arch: Option<(u32, u32)>,
    /// Brands the driver may report; the truth is one of them. Empty: unknown.
    pub(super) brands: &'a [String],
}

/// How a requirement came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It holds.
    Met,
    /// It does not; the term that decides, and what is there instead.
    Unmet { variable: String, term: String, found: String, alternatives: usize },
    /// It cannot be told; the term, and why.
    Unknown { variable: String, term: String, why: String },
}

#[derive(Debug, Clone)]
enum Term {
    Version { property: &'static str, operator: Operator, value: Version, text: String },
    Brand { equal: bool, value: String, text: String },
}

impl Term {
    fn text(&self) -> &str {
        match self {
            Self::Version { text, .. } | Self::Brand { text, .. } => text,
        }
    }
}

/// A value, read: alternatives, each a list of terms that must all hold.
#[derive(Debug)]
pub(super) struct Requirement(Vec<Vec<Term>>);

/// A term that could not be read, and why.
#[derive(Debug)]
pub(super) struct Unreadable {
    term: String,
    why: String,
}

impl Requirement {
    /// Reads the value of a variable.
    pub(super) fn parse(value: &str) -> Result<Self, Unreadable> {
        let mut alternatives = Vec::new();
        for alternative in value.split_whitespace() {
            let terms = alternative
                .split(',')
                .filter(|term| !term.is_empty())
                .map(parse_term)
                .collect::<Result<Vec<_>, _>>()?;
            if !terms.is_empty() {
                alternatives.push(terms);
            }
        }
        Ok(Self(alternatives))
    }

    /// The CUDA release named by the highest `cuda>=X` or `cuda>X` term.
    pub(super) fn cuda_wanted(&self) -> Option<Version> {
        let wanted = self.0.iter().flatten().filter_map(|term| match term {
            Term::Version {
                property: "cuda",
                operator: Operator::GreaterEqual | Operator::Greater | Operator::Equal,
                value,
                ..
            } => Some(value.clone()),
            _ => None,
        });
        wanted.max()
    }

    fn evaluate(&self, variable: &str, properties: &Properties<'_>) -> Outcome {
        if self.0.is_empty() {
            return Outcome::Met;
        }
        let mut unknown = None;
        let mut unmet = None;
        for terms in &self.0 {
            let results: Vec<(&Term, Option<bool>)> =
                terms.iter().map(|term| (term, holds(term, properties))).collect();
            if results.iter().all(|(_, holds)| *holds == Some(true)) {
                return Outcome::Met;
            }
            if let Some((term, _)) = results.iter().find(|(_, holds)| *holds == Some(false)) {
                // The bare `cuda` term says most; images put it first.
                unmet.get_or_insert(*term);
            } else if let Some((term, _)) = results.iter().find(|(_, holds)| holds.is_none()) {
                unknown.get_or_insert(*term);
            }
        }
        match (unknown, unmet) {
            (Some(term), _) => Outcome::Unknown {
                variable: variable.to_owned(),
                term: term.text().to_owned(),
                why: why_unknown(term, properties),
            },
            (None, Some(term)) => Outcome::Unmet {
                variable: variable.to_owned(),
                term: term.text().to_owned(),
                found: found(term, properties),
                alternatives: self.0.len() - 1,
            },
            (None, None) => Outcome::Met,
        }
    }
}

/// Whether the toolkit looks at a variable at all: those of Jetson are for another platform.
fn counts(variable: &str) -> bool {
    variable.starts_with("NVIDIA_REQUIRE_") && !variable.starts_with("NVIDIA_REQUIRE_JETPACK")
}

/// Evaluates every variable: all are needed. A term that cannot be read leaves the whole unknown.
pub(super) fn evaluate(require: &BTreeMap<String, String>, properties: &Properties<'_>) -> Outcome {
    let mut result = Outcome::Met;
    for (variable, value) in require.iter().filter(|(variable, _)| counts(variable)) {
        let requirement = match Requirement::parse(value) {
            Ok(requirement) => requirement,
            Err(Unreadable { term, why }) => {
                return Outcome::Unknown { variable: variable.clone(), term, why };
            }
        };
        // The driver reports one of these brands: what holds for all of them holds, what holds for none does not.
        let brands: Vec<&[String]> = if properties.brands.is_empty() {
            vec![properties.brands]
        } else {
            properties.brands.chunks(1).collect()
        };
        let mut outcomes = brands.into_iter().map(|brands| {
            let properties = Properties { brands, cuda: properties.cuda.clone(), ..*properties };
            requirement.evaluate(variable, &properties)
        });
        let first = outcomes.next().unwrap_or(Outcome::Met);
        let agreed = outcomes.fold(first, |agreed, next| match (&agreed, &next) {
            (Outcome::Unknown { .. }, _)
            | (Outcome::Met, Outcome::Met)
            | (Outcome::Unmet { .. }, Outcome::Unmet { .. }) => agreed,
            (_, Outcome::Unknown { .. }) => next,
            (Outcome::Unmet { variable, term, .. }, Outcome::Met)
            | (Outcome::Met, Outcome::Unmet { variable, term, .. }) => Outcome::Unknown {
                variable: variable.clone(),
                term: term.clone(),
                why: format!(
                    "it depends on the brand the driver reports: {}",
                    properties.brands.join(" or ")
                ),
            },
        });
        match (&result, &agreed) {
            (Outcome::Unmet { .. }, _)
            | (_, Outcome::Met)
            | (Outcome::Unknown { .. }, Outcome::Unknown { .. }) => {}
            _ => result = agreed,
        }
    }
    result
}

/// The highest CUDA release any variable names; `None` where none does or one cannot be read.
pub(super) fn cuda_wanted(require: &BTreeMap<String, String>) -> Option<Version> {
    require
        .iter()
        .filter(|(variable, _)| counts(variable))
        .filter_map(|(_, value)| Requirement::parse(value).ok()?.cuda_wanted())
        .max()
}

fn parse_term(text: &str) -> Result<Term, Unreadable> {
    let unreadable = |why: String| Unreadable { term: text.escape_debug().to_string(), why };
    let start = text
        .find(['<', '>', '=', '!'])
        .ok_or_else(|| unreadable("it has no operator (= != > >= < <=)".to_owned()))?;
    let (property, rest) = text.split_at(start);
    let (operator, value) = [
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessEqual),
        (">=", Operator::GreaterEqual),
        ("=", Operator::Equal),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ]
    .into_iter()
    .find_map(|(sign, operator)| rest.strip_prefix(sign).map(|value| (operator, value)))
    .ok_or_else(|| unreadable("it has no operator (= != > >= < <=)".to_owned()))?;
    let property = match property {
        "cuda" => "cuda",
        "driver" => "driver",
        "arch" => "arch",
        "brand" => {
            let equal = match operator {
                Operator::Equal => true,
                Operator::NotEqual => false,
                _ => return Err(unreadable("a brand is only compared with = or !=".to_owned())),
            };
            if value.is_empty() {
                return Err(unreadable("it names no brand".to_owned()));
            }
            return Ok(Term::Brand { equal, value: value.to_ascii_lowercase(), text: text.to_owned() });
        }
        other => {
            return Err(unreadable(format!(
                "`{}` is no property of a host known here",
                other.escape_debug()
            )));
        }
    };
    let value = Version::parse(value).ok_or_else(|| unreadable("its value is not a version".to_owned()))?;
    Ok(Term::Version { property, operator, value, text: text.to_owned() })
}

fn holds(term: &Term, properties: &Properties<'_>) -> Option<bool> {
    match term {
        Term::Brand { equal, value, .. } => {
            let brand = properties.brands.first()?;
            Some((brand.eq_ignore_ascii_case(value)) == *equal)
        }
        Term::Version { property, operator, value, .. } => match *property {
            "cuda" => properties.cuda.as_ref()?.compare(*operator, value),
            "driver" => properties.driver?.range.compare(*operator, value),
            _ => {
                let (major, minor) = properties.arch?;
                Range::exactly(Version::of(&[major, minor])).compare(*operator, value)
            }
        },
    }
}

fn found(term: &Term, properties: &Properties<'_>) -> String {
    match term {
        Term::Brand { .. } => format!("the GPU's brand is {}", properties.brands.join(" or ")),
        Term::Version { property: "cuda", .. } => {
            let driver = properties.driver.map_or_else(|| "the driver".to_owned(), Driver::name);
            match properties.cuda.as_ref() {
                Some(Range { low: None, high: Some(high), .. }) => {
                    format!("{driver} is older than CUDA {high}")
                }
                Some(Range { high: Some(high), .. }) => format!("{driver} offers CUDA {high}"),
                Some(Range { low: Some(low), .. }) => format!("{driver} offers CUDA {low} or later"),
                _ => driver,
            }
        }
        Term::Version { property: "driver", .. } => properties
            .driver
            .map_or_else(|| "the driver is not known".to_owned(), |d| format!("there is {}", d.name())),
        Term::Version { .. } => match properties.arch {
            Some((major, minor)) => format!("the GPU's compute capability is {major}.{minor}"),
            None => "the GPU's compute capability is not known".to_owned(),
        },
    }
}

fn why_unknown(term: &Term, properties: &Properties<'_>) -> String {
    match term {
        Term::Brand { .. } => "the GPU's brand is not known".to_owned(),
        Term::Version { property: "arch", .. } => "the GPU's compute capability is not known".to_owned(),
        Term::Version { .. } => match properties.driver {
            None => "the driver's version is not known".to_owned(),
            Some(driver) if driver.branch => format!("{} has versions on both sides of it", driver.name()),
            Some(driver) => format!("{} is newer or older than the table of drivers", driver.name()),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lock::cuda::tables::tables;

    fn check(value: &str, driver: Option<&str>, arch: Option<(u32, u32)>, brands: &[&str]) -> &'static str {
        let driver = driver.map(|d| Driver::parse(d).unwrap());
        let brands: Vec<String> = brands.iter().map(ToString::to_string).collect();
        let properties = Properties {
            driver: driver.as_ref(),
            cuda: driver.as_ref().map(|d| tables().cuda_of(&d.range)),
            arch,
            brands: &brands,
        };
        match evaluate(&BTreeMap::from([("NVIDIA_REQUIRE_CUDA".to_owned(), value.to_owned())]), &properties) {
            Outcome::Met => "met",
            Outcome::Unmet { .. } => "unmet",
            Outcome::Unknown { .. } => "unknown",
        }
    }

    #[test]
    fn blank_is_or_and_comma_is_and() {
        let real = "cuda>=12.8 brand=unknown,driver>=470,driver<471 brand=nvidia,driver>=550,driver<551 \
                    brand=tesla,driver>=550,driver<551";
        let h100 = Some((9, 0));
        for (value, driver, arch, brands, expected) in [
            ("", None, None, &[][..], "met"),
            (" , ", None, None, &[], "met"),
            ("cuda>=12.4", Some("550.163.01"), None, &[], "met"),
            ("cuda>=12.8", Some("550.163.01"), None, &[], "unmet"),
            ("cuda>=12.8", None, None, &[], "unknown"),
            ("cuda<12.4", Some("550.163.01"), None, &[], "unmet"),
            ("cuda>12.4", Some("550.163.01"), None, &[], "unmet"),
            ("cuda<=12.4", Some("550.163.01"), None, &[], "met"),
            ("cuda!=12.4", Some("550.163.01"), None, &[], "unmet"),
            ("cuda=12.4", Some("550.163.01"), None, &[], "met"),
            ("driver>=535,driver<536", Some("535.104.05"), None, &[], "met"),
            ("driver>=535,driver<536", Some("536.1"), None, &[], "unmet"),
            ("driver>=535,driver<536", Some("535"), None, &[], "met"),
            ("driver>=535.86", Some("535"), None, &[], "unknown"),
            ("driver>=535.86 cuda>=11.0", Some("535"), None, &[], "met"),
            ("arch>=7.5", None, h100, &[], "met"),
            ("arch>=9.1", None, h100, &[], "unmet"),
            ("arch>=7.5", None, None, &[], "unknown"),
            ("brand=tesla", None, None, &["tesla"], "met"),
            ("brand=TESLA", None, None, &["Tesla"], "met"),
            ("brand!=geforce", None, None, &["nvidia", "tesla"], "met"),
            ("brand=geforce", None, None, &["nvidia", "tesla"], "unmet"),
            ("brand=tesla", None, None, &["nvidia", "tesla"], "unknown"),
            ("brand=tesla", None, None, &[], "unknown"),
            (real, Some("550.163.01"), h100, &["nvidia", "tesla"], "met"),
            (real, Some("555.42.02"), h100, &["nvidia", "tesla"], "unmet"),
            (real, Some("570.26"), h100, &["nvidia", "tesla"], "met"),
            (real, Some("550.163.01"), h100, &["geforce"], "unmet"),
            (real, Some("550.163.01"), h100, &[], "unknown"),
            (real, Some("550"), h100, &["tesla"], "met"),
            ("cuda>=99.0", Some("900.1"), h100, &["tesla"], "unknown"),
            ("jetpack>=5", Some("550.1"), None, &[], "unknown"),
            ("cuda", Some("550.1"), None, &[], "unknown"),
            ("cuda>=x", Some("550.1"), None, &[], "unknown"),
            ("cuda!12", Some("550.1"), None, &[], "unknown"),
            ("brand>tesla", None, None, &["tesla"], "unknown"),
            ("cuda>=11.0 nonsense", Some("550.1"), None, &[], "unknown"),
        ] {
            assert_eq!(check(value, driver, arch, brands), expected, "{value} {driver:?} {brands:?}");
        }
    }

    #[test]
    fn all_variables_are_needed_and_jetson_is_left_out() {
        let driver = Driver::parse("550.163.01").unwrap();
        let properties = Properties {
            driver: Some(&driver),
            cuda: Some(tables().cuda_of(&driver.range)),
            arch: None,
            brands: &[],
        };
        let variables = |list: &[(&str, &str)]| {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let both =
            variables(&[("NVIDIA_REQUIRE_CUDA", "cuda>=11.0"), ("NVIDIA_REQUIRE_DRIVER", "driver>=560")]);
        assert!(matches!(
            evaluate(&both, &properties),
            Outcome::Unmet { variable, .. } if variable == "NVIDIA_REQUIRE_DRIVER"
        ));
        let jetson =
            variables(&[("NVIDIA_REQUIRE_JETPACK_HOST_MOUNTS", "base-only"), ("NVIDIA_REQUIRE_CUDA", "")]);
        assert_eq!(evaluate(&jetson, &properties), Outcome::Met);
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(value in "[ -~\\n]{0,60}", unicode in any::<String>()) {
            for value in [value, unicode] {
                let _ = check(&value, Some("550.163.01"), Some((9, 0)), &["nvidia", "tesla"]);
            }
        }
    }
}
