//! How much memory a model takes of each GPU. What is computed is said to be, what is estimated as well.

use super::settings::{Settings, bytes};
use crate::{
    host::facts::{Kept, Shape},
    profile::deployment::Engine,
};

const GIB: u64 = 1 << 30;
/// What vLLM takes beside weights and cache: CUDA's context, NCCL's buffers, activations and CUDA graphs. Our estimate.
const BESIDE: u64 = 2 * GIB;
/// Tokens that vLLM works on at once where nothing else is said: its largest default for a server (`EngineArgs`).
const BATCH: u64 = 8192;
/// Lengths that are suggested are multiples of this, where they are longer.
const STEP: u64 = 1024;
/// An estimate may be off by so many parts of a hundred.
const MARGIN: u64 = 10;

/// A number that is known only from below and from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) low: u64,
    pub(super) high: u64,
}

/// Whether it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// With more than the margin to spare.
    Fits,
    /// Too close to say: within the margin of the limit.
    Close,
    /// The cache of one sequence does not.
    Cache,
    /// The weights alone do not.
    Weights,
}

/// What would fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suggestion {
    /// The smallest tensor parallel size at this length.
    pub(super) tensor: Option<u64>,
    /// The longest context at this tensor parallel size.
    pub(super) context: Option<u64>,
}

/// A model for a deployment on GPUs of one size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Estimate<'a> {
    pub(super) settings: &'a Settings,
    pub(super) shape: &'a Shape,
    /// Bytes of weights, as stored.
    pub(super) weights: u64,
    /// Bytes of memory of a GPU.
    pub(super) memory: u64,
}

impl Estimate<'_> {
    /// Memory of a GPU for what is counted here. vLLM: `gpu_memory_utilization` of it, for everything. SGLang:
    /// `mem_fraction_static` of it, for weights and cache; left out, it keeps back by the GPU's size (`server_args.py`,
    /// `__post_init__`, SGLang 0.4.8; newer ones count finer, and near it).
    pub(super) fn room(&self, tensor: u64) -> u64 {
        if let Some(share) = self.settings.share {
            return self.memory / 1000 * share;
        }
        let gpus = tensor.saturating_mul(self.settings.pipeline);
        let tenth = GIB / 10;
        let kept_back = match self.memory / GIB {
            0..35 => (28 * tenth).saturating_add(gpus.saturating_mul(tenth)),
            35..90 => (95 * tenth).saturating_add(gpus.saturating_mul(GIB / 2)),
            90..160 => (12 * GIB).saturating_add(gpus.saturating_mul(GIB / 2)),
            _ => 32 * GIB,
        };
        self.memory.saturating_sub(kept_back)
    }

    /// What else takes of [`Self::room`].
    pub(super) fn beside(&self) -> u64 {
        match self.settings.engine {
            Engine::Vllm => BESIDE,
            Engine::Sglang => 0,
        }
    }

    /// Weights on each GPU. Weights that are not quantised are loaded in the type that the engine computes with.
    pub(super) fn weights(&self, tensor: u64) -> Range {
        let stored = self.shape.dtype.as_deref().and_then(bytes);
        let mut whole = Range { low: self.weights, high: self.weights };
        if self.shape.quantised.is_none() {
            if let (Some(stored), Some(number)) = (stored, self.settings.number) {
                let scaled = (self.weights / stored).saturating_mul(number);
                // An index that was written for other files than its configuration says: both are possible.
                whole = Range { low: scaled.min(self.weights), high: scaled };
                if number == stored {
                    whole.low = scaled;
                }
            }
            match self.settings.quantisation.as_deref() {
                None => {}
                Some("fp8") => whole = Range { low: whole.low / 2, high: whole.high },
                // Four bits a number of sixteen, at best.
                Some(_) => whole.low /= 4,
            }
        }
        let gpus = tensor.saturating_mul(self.settings.pipeline).max(1);
        Range { low: whole.low.div_ceil(gpus), high: whole.high.div_ceil(gpus) }
    }

    /// Bytes that one layer keeps of one token on each GPU: 2 for key and value, times heads, times their width, times
    /// bytes of a number. A head is on one GPU, or on several where there are more GPUs (vLLM, `get_num_kv_heads`).
    fn layer(&self, tensor: u64) -> Option<Range> {
        let numbers = match self.shape.kept {
            Kept::Heads { heads, width } => 2 * heads.div_ceil(tensor).max(1) * width,
            Kept::Latent { width } => width,
            Kept::Unknown { .. } => return None,
        };
        let computed = self.settings.number.or_else(|| self.shape.dtype.as_deref().and_then(bytes));
        // What is stored wider is computed with two bytes, where nothing is said (vLLM, `_resolve_auto_dtype`).
        let number = self.settings.cached.unwrap_or_else(|| computed.unwrap_or(2).max(2));
        let low = if self.shape.quantised_cache && self.settings.cached.is_none() { 1 } else { number };
        Some(Range { low: numbers * low, high: numbers * number })
    }

    /// Bytes of cache that one sequence of this many tokens takes of each GPU. Layers with a window keep that, and what
    /// is worked on at once (vLLM, `SlidingWindowSpec`); whether SGLang gives back the rest depends on the model.
    pub(super) fn cache(&self, tensor: u64, context: u64) -> Option<Range> {
        let layers = self.shape.layers?;
        let stage = |layers: u64| layers.div_ceil(self.settings.pipeline);
        let windowed = self.shape.windowed.min(layers);
        let kept = self.shape.window.map_or(context, |window| {
            context.min(window.saturating_add(self.settings.batch.unwrap_or(BATCH)))
        });
        let layer = self.layer(tensor)?;
        let tokens = |per: u64| {
            let full = stage(layers - windowed).saturating_mul(context);
            full.saturating_add(stage(windowed).saturating_mul(kept)).saturating_mul(per)
        };
        let whole = stage(layers).saturating_mul(context).saturating_mul(layer.high);
        let low = tokens(layer.low);
        Some(Range {
            low,
            high: if self.settings.engine == Engine::Sglang { whole } else { tokens(layer.high) }.max(low),
        })
    }

    /// Whether it fits; without a length, whether the weights do.
    pub(super) fn level(&self, tensor: u64, context: Option<u64>) -> Level {
        let room = self.room(tensor);
        let weights = self.weights(tensor);
        if weights.low > room {
            return Level::Weights;
        }
        let cache = context.and_then(|context| self.cache(tensor, context));
        let cache = cache.unwrap_or(Range { low: 0, high: 0 });
        let beside = self.beside();
        let low = u128::from(weights.low) + u128::from(cache.low) + u128::from(beside);
        let high = u128::from(weights.high) + u128::from(cache.high) + u128::from(beside);
        let room = u128::from(room);
        if high * 100 <= room * u128::from(100 - MARGIN) {
            Level::Fits
        } else if low * 100 > room * u128::from(100 + MARGIN) {
            Level::Cache
        } else {
            Level::Close
        }
    }

    /// Why the heads cannot be dealt out over so many GPUs (vLLM, `verify_with_parallel_config`; `LlamaAttention`).
    pub(super) fn undealt(shape: &Shape, tensor: u64) -> Option<String> {
        let heads = shape.heads?;
        if !heads.is_multiple_of(tensor) {
            return Some(format!("the {heads} attention heads"));
        }
        match shape.kept {
            Kept::Heads { heads: kv, .. } if !kv.is_multiple_of(tensor) && !tensor.is_multiple_of(kv) => {
                Some(format!("the {kv} key and value heads"))
            }
            _ => None,
        }
    }

    /// The smallest tensor parallel size and the longest context that fit.
    pub(super) fn suggestion(&self, context: Option<u64>) -> Suggestion {
        let heads = self.shape.heads.unwrap_or(0);
        let tensor = (1..=heads.min(4096)).find(|tensor| {
            Self::undealt(self.shape, *tensor).is_none() && self.level(*tensor, context) == Level::Fits
        });
        let fits = |length: u64| self.level(self.settings.tensor, Some(length)) == Level::Fits;
        // The longest that fits, by halves: a longer one never takes less.
        let longest = context.filter(|_| fits(1)).map(|asked| {
            let (mut fit, mut not) = (1, asked.saturating_add(1));
            while not - fit > 1 {
                let middle = fit + (not - fit) / 2;
                if fits(middle) { fit = middle } else { not = middle }
            }
            if fit >= STEP { fit / STEP * STEP } else { fit }
        });
        Suggestion { tensor, context: longest }
    }
}
