//! A host: what is observed on it.

pub mod facts;
