//! Which sources are asked and have not answered yet, for people who wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sources that are asked now. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Awaited(Arc<Mutex<Vec<String>>>);

impl Awaited {
    /// Their names, each once, longest asked first.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in &*self.list() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// A source is on the list until what this gives is dropped.
    pub(super) fn ask(&self, what: &str) -> Asked {
        self.list().push(what.to_owned());
        Asked { list: self.clone(), what: what.to_owned() }
    }

    fn list(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that is asked.
pub(super) struct Asked {
    list: Awaited,
    what: String,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut list = self.list.list();
        if let Some(at) = list.iter().position(|other| *other == self.what) {
            list.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_awaited_until_the_last_look_at_it_ends() {
        let awaited = Awaited::default();
        let first = awaited.ask("the disk");
        let docker = awaited.ask("Docker");
        let second = awaited.ask("the disk");
        assert_eq!(awaited.names(), ["the disk", "Docker"]);
        drop(first);
        assert_eq!(awaited.names(), ["Docker", "the disk"]);
        drop((docker, second));
        assert!(awaited.names().is_empty());
    }
}
