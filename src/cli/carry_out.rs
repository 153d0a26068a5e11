//! One run against a host or tree: observed, planned, applied, told. What `provision`, `generations switch` and
//! `toolkit install` have in common.

use super::{Context, carry, supply::Supply};
use crate::{
    error::Result,
    host::{
        content::Places,
        provision::{self, Options, Outcome},
        secrets::Frame,
    },
    lock::bundle::{Bundle, Pinned},
    plan::{self, HostState, Inputs, Plan},
    system::files::{HostLock, Root},
    ui::text,
};

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A generation, with what the archives' mirrors have.
    Provision,
    /// A generation that is there: nothing is fetched.
    Switch(u64),
    /// The container engine and toolkit alone: no generation.
    Toolkit,
    /// A tree without a generation, with bedplate's program or without.
    Bare { program: bool },
}

/// What a host or tree is brought to, and with what.
pub struct Run<'a> {
    root: &'a Root,
    bundle: &'a Bundle,
    pinned: &'a Pinned,
    inputs: Inputs<'a>,
    frame: &'a Frame,
    look: Options,
    goal: Goal,
}

impl<'a> Run<'a> {
    /// `frame`: secrets and registry credentials it was given; `places`: where content is looked for.
    pub fn new(
        context: &Context,
        root: &'a Root,
        (bundle, pinned): (&'a Bundle, &'a Pinned),
        frame: &'a Frame,
        places: Places,
        goal: Goal,
    ) -> Self {
        Self {
            root,
            bundle,
            pinned,
            inputs: Inputs::of(pinned, bundle.digest()),
            frame,
            look: Options {
                docker_socket: carry::docker_socket(context),
                content: places,
                ..Options::default()
            },
            goal,
        }
    }

    /// The same, with steps back of these packages allowed.
    pub fn allowing(self, allow: &'a [String]) -> Self {
        Self { inputs: self.inputs.allowing(allow), ..self }
    }

    /// The same, with a new generation dated so.
    pub fn dated(mut self, time: jiff::Timestamp) -> Self {
        self.look.dated = Some(time);
        self
    }

    /// The plan, from what is there now. Changes nothing.
    ///
    /// # Errors
    /// What is there cannot be read, or stands in the way.
    pub async fn plan(&self) -> Result<Plan> {
        let state: HostState =
            provision::observe(self.root, &self.inputs, &self.frame.secrets, &self.look).await?;
        match self.goal {
            Goal::Provision => plan::make(&self.inputs, &state, plan::Goal::Provision),
            Goal::Switch(number) => plan::make(&self.inputs, &state, plan::Goal::Switch(number)),
            Goal::Toolkit => plan::toolkit(&self.inputs, &state),
            Goal::Bare { program } => plan::bare(&self.inputs, &state, program),
        }
    }

    /// Carries the plan out, and says what came of it.
    ///
    /// # Errors
    /// The host lacks something the plan names; or the first step that failed, by name.
    pub async fn apply(&self, context: &Context, held: &HostLock, plan: &Plan) -> Result<Outcome> {
        let progress = context.ui.progress();
        let supply = match self.goal {
            Goal::Switch(_) => Supply::offline(context),
            Goal::Provision | Goal::Toolkit | Goal::Bare { .. } => {
                Supply::new(context, &self.pinned.profile)?
            }
        };
        let with = provision::Context {
            root: self.root,
            held,
            pinned: self.pinned,
            bundle: self.bundle,
            secrets: &self.frame.secrets,
            registries: &self.frame.registries,
            supply: supply.of(context),
            look: &self.look,
            progress: progress.as_ref(),
        };
        let outcome = match self.goal {
            Goal::Toolkit | Goal::Bare { .. } => provision::apply_alone(plan, &with).await?,
            Goal::Provision | Goal::Switch(_) => provision::apply(plan, &with).await?,
        };
        self.tell(context, plan, &outcome);
        Ok(outcome)
    }

    fn tell(&self, context: &Context, plan: &Plan, outcome: &Outcome) {
        for warning in &outcome.warnings {
            context.ui.warn(warning);
        }
        // Whoever goes to another generation was told of these when it was made.
        if self.goal == Goal::Provision {
            say_unlocked(context, plan);
        }
        let planned = plan.deferred.iter().map(|deferred| format!("{}: {}", deferred.what, deferred.why));
        for waits in planned.chain(outcome.deferred.iter().cloned()) {
            context.ui.say(&format!("waits: {waits}"));
        }
        let done = format!("{} carried out", text::count(outcome.changed, "step"));
        context.ui.say(&match self.goal {
            Goal::Toolkit | Goal::Bare { .. } => done,
            Goal::Provision | Goal::Switch(_) => {
                format!("generation {} is current: {done}", outcome.generation)
            }
        });
    }
}

/// Packages that the lock leaves alone: a count, and their names with `-v`.
pub fn say_unlocked(context: &Context, plan: &Plan) {
    if plan.unlocked.is_empty() {
        return;
    }
    let names =
        if context.ui.verbose > 0 { format!(": {}", plan.unlocked.join(", ")) } else { String::new() };
    let count = text::count(plan.unlocked.len(), "package");
    context.ui.say(&format!("{count} of the host not in the lock, left alone{names}"));
}

/// What a dry run cannot say of a plan for packages: apt is asked with the packages themselves at hand, which a dry run
/// neither fetches nor puts anywhere.
pub fn say_unasked(context: &Context, plan: &Plan) {
    if plan.touches_packages() {
        context.ui.say(
            "apt was not asked in this dry run: a run asks it before anything changes, and stops where it would do \
             anything else",
        );
    }
}
