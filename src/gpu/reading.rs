//! One value as NVML gives it, or why not.

use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

/// What NVML says of one value. That a card has no such thing is an answer, not a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading<T> {
    /// It was read.
    Value(T),
    /// The card or its driver has no such thing (code 3).
    NotSupported,
    /// It could not be read.
    Unknown {
        /// Why, in one line.
        why: String,
    },
}

impl<T> Reading<T> {
    /// It could not be read, because of `why`.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into() }
    }

    /// What was read, if anything.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::NotSupported | Self::Unknown { .. } => None,
        }
    }

    /// Another value made of it.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Value(value) => Reading::Value(change(value)),
            Self::NotSupported => Reading::NotSupported,
            Self::Unknown { why } => Reading::Unknown { why },
        }
    }

    /// Both, or why one of them is not there.
    pub fn and<U>(self, other: Reading<U>) -> Reading<(T, U)> {
        match (self, other) {
            (Self::Value(one), Reading::Value(two)) => Reading::Value((one, two)),
            (Self::Unknown { why }, _) | (_, Reading::Unknown { why }) => Reading::Unknown { why },
            (Self::NotSupported, _) | (_, Reading::NotSupported) => Reading::NotSupported,
        }
    }
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self::unknown("nothing was looked at")
    }
}

impl<T> From<Result<T, NvmlError>> for Reading<T> {
    fn from(result: Result<T, NvmlError>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(NvmlError::NotSupported) => Self::NotSupported,
            Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => {
                Self::unknown("the driver's library has no such call")
            }
            Err(error) => Self::unknown(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_without_a_thing_is_told_from_a_call_that_failed() {
        let of = |error| Reading::<u32>::from(Err(error));
        assert_eq!(of(NvmlError::NotSupported), Reading::NotSupported);
        assert!(
            matches!(of(NvmlError::GpuLost), Reading::Unknown { why } if why.contains("fell off the bus"))
        );
        assert!(
            matches!(of(NvmlError::FunctionNotFound), Reading::Unknown { why } if why.contains("no such call"))
        );
        assert_eq!(Reading::from(Ok(7)).map(|n: u32| n + 1).value(), Some(&8));
        assert_eq!(Reading::Value(1).and(Reading::<u32>::NotSupported), Reading::NotSupported);
        assert_eq!(of(NvmlError::NotSupported).and(Reading::<u32>::unknown("x")), Reading::unknown("x"));
    }
}
