//! Every check from facts: healthy, broken, unseen, repaired; and the rules around them.

mod ahead;
mod chains;
mod exposed;
mod facts;
mod fit;
mod gating;
mod gpu;
mod healthy;
mod recorded;
mod rules;
#[macro_use]
mod table;
mod symptoms;
mod symptoms_data;
mod table_engine;
mod table_host;
mod table_smoke;

use facts::World;

use super::{judge, judge_only, report::*};

impl World {
    /// One check's finding.
    fn finding(&self, id: &str) -> Finding {
        let subject = self.subject();
        let report = judge_only(&[id], &subject, &self.facts);
        assert_eq!(report.findings.len(), 1, "{id}");
        report.findings.into_iter().next().unwrap()
    }

    /// The report of these layers.
    fn report(&self, layers: &[Layer]) -> Report {
        judge(layers, &self.subject(), &self.facts)
    }
}
