//! A model's shape, from its `config.json`: what decides how much memory a token's keys and values take.
//!
//! The names are those of transformers' `PretrainedConfig` and its `attribute_map`s; what is made of them follows vLLM
//! (`transformers_utils/model_arch_config_convertor.py`, `config/model.py`, `v1/kv_cache_interface.py`). A number that
//! no model can have is an error that names it, and a kind of layer whose cache is not known here makes the cache
//! unknown.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Objects that hold the language model's part (transformers, `get_text_config`; DeepSeek-VL2; InternVL).
const TEXT: [&str; 4] = ["/text_config", "/llm_config", "/language_config", "/thinker_config/text_config"];
/// More of them has no model: what is beyond is no number of layers, heads or dimensions.
const MOST: u64 = 1 << 20;
/// No model reads a longer text.
const LONGEST: u64 = 1 << 40;
/// The longest word of a configuration that is kept: names of models' kinds and of data types.
const WORD: usize = 40;
/// Types whose cache holds the compressed keys and values (vLLM, `is_deepseek_mla`), where all layers are alike.
const LATENT: [&str; 8] = [
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_mtp",
    "kimi_k2",
    "pangu_ultra_moe",
    "glm4_moe_lite",
    "axk1",
    "AXK1",
];
/// Keys of models whose layers are not all of attention, share their cache, or keep more than keys and values.
const OTHERWISE: [&str; 22] = [
    "attn_config",
    "attn_layer_indices",
    "attn_layer_period",
    "attn_type_list",
    "attention_other_setting",
    "block_configs",
    "block_types",
    "compress_ratios",
    "cross_attention_layers",
    "full_attention_interval",
    "hybrid_override_pattern",
    "index_topk",
    "layers_block_type",
    "linear_attn_config",
    "linear_num_key_heads",
    "mamba_d_ssm",
    "mamba_d_state",
    "mamba_num_heads",
    "num_kv_shared_layers",
    "ssm_cfg",
    "ssm_state_size",
    "state_size",
];
/// Types all of whose layers see a window only, where `sliding_window` is set (transformers, their configurations).
const ALL_WINDOWED: [&str; 4] = ["mistral", "mixtral", "phi3", "starcoder2"];
/// Every how manieth layer sees all, in types whose `config.json` may leave that out (transformers, the same).
const EVERY: [(&str, u64); 4] = [("gemma2", 2), ("gemma3_text", 6), ("gemma3", 6), ("cohere2", 4)];

/// What a model's `config.json` says of its layers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// `model_type`.
    pub kind: String,
    /// `num_hidden_layers`.
    pub layers: Option<u64>,
    /// `num_attention_heads`.
    pub heads: Option<u64>,
    /// What each layer keeps of a token.
    pub kept: Kept,
    /// How many of the layers keep no more than a window.
    pub windowed: u64,
    /// The window, in tokens.
    pub window: Option<u64>,
    /// The longest text it was made for, in tokens, with what `rope_scaling` adds.
    pub longest: Option<u64>,
    /// The data type of its weights: `bfloat16`.
    pub dtype: Option<String>,
    /// How its weights are quantised: `fp8`.
    pub quantised: Option<String>,
    /// Whether its own configuration asks for quantised keys and values.
    pub quantised_cache: bool,
}

/// What each layer keeps of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// A key and a value for each of these heads.
    Heads {
        /// `num_key_value_heads`.
        heads: u64,
        /// Numbers in a key, and in a value.
        width: u64,
    },
    /// One compressed vector for all heads (multi-head latent attention, DeepSeek-V2, section 2.1).
    Latent {
        /// `kv_lora_rank` and `qk_rope_head_dim` together.
        width: u64,
    },
    /// It is not known.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Default for Kept {
    fn default() -> Self {
        Self::Unknown { why: "nothing was looked at".to_owned() }
    }
}

impl Shape {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Why nothing can be said of it: it is no JSON object, or a number in it is none that a model can have.
    pub fn read(content: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(content).map_err(|error| format!("`config.json` is not JSON: {error}"))?;
        let Value::Object(whole) = &value else {
            return Err("`config.json` is not an object".to_owned());
        };
        let text = TEXT.iter().find_map(|place| value.pointer(place)?.as_object()).unwrap_or(whole);
        let part = Part { text, whole };
        let kind = part.word("model_type").unwrap_or_default();
        let layers = part.number(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"], MOST)?;
        let heads = part.number(&["num_attention_heads", "n_head", "n_heads"], MOST)?;
        // Gemma 3 leaves out what is as by default (transformers, `Gemma3TextConfig`).
        let gemma3 = kind.starts_with("gemma3");
        let heads = heads.or_else(|| gemma3.then_some(8));
        let longest = longest(&part, gemma3)?;
        let (windowed, window, kept) = match kept(&part, &kind, heads, gemma3)
            .and_then(|kept| Ok((kept, windows(&part, &kind, layers.unwrap_or_default())?)))
        {
            Ok((kept, (windowed, window))) => (windowed, window, kept),
            Err(Trouble::Unknown(why)) => (0, None, Kept::Unknown { why }),
            Err(Trouble::Number(why)) => return Err(why),
        };
        let quantisation = part.object("quantization_config").or_else(|| part.object("compression_config"));
        let method = |of: &Map<String, Value>| {
            of.get("quant_method").and_then(Value::as_str).map_or_else(|| "unnamed".to_owned(), word)
        };
        Ok(Self {
            kind,
            layers,
            heads,
            kept,
            windowed,
            window,
            longest,
            dtype: part.word("torch_dtype").or_else(|| part.word("dtype")),
            quantised: quantisation.map(method),
            quantised_cache: quantisation.is_some_and(|of| {
                ["kv_cache_scheme", "kv_cache_quant_algo"]
                    .iter()
                    .any(|key| of.get(*key).is_some_and(|value| !value.is_null()))
            }),
        })
    }
}

/// Why a layer's cache is not known: a number that cannot be, or a kind that is not known here.
enum Trouble {
    Number(String),
    Unknown(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Number(why)
    }
}

/// The language model's part of a configuration, and the whole of it.
struct Part<'v> {
    text: &'v Map<String, Value>,
    whole: &'v Map<String, Value>,
}

impl<'v> Part<'v> {
    /// A value that is there and not null.
    fn get(&self, key: &str) -> Option<&'v Value> {
        self.text.get(key).filter(|value| !value.is_null())
    }

    fn either(&self, key: &str) -> Option<&'v Value> {
        self.get(key).or_else(|| self.whole.get(key)).filter(|value| !value.is_null())
    }

    fn word(&self, key: &str) -> Option<String> {
        self.either(key).and_then(Value::as_str).map(word)
    }

    fn object(&self, key: &str) -> Option<&'v Map<String, Value>> {
        self.either(key).and_then(Value::as_object)
    }

    fn yes(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool) == Some(true)
    }

    /// The first of these keys that is there: a whole number from 1 to `most`.
    fn number(&self, keys: &[&str], most: u64) -> Result<Option<u64>, String> {
        let Some((key, value)) = keys.iter().find_map(|key| Some((*key, self.get(key)?))) else {
            return Ok(None);
        };
        whole(key, value, most).map(Some)
    }
}

fn whole(key: &str, value: &Value, most: u64) -> Result<u64, String> {
    value.as_u64().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
        let shown: String = value.to_string().chars().take(WORD).collect();
        format!("`{key}` of `config.json` is {shown}, which is not a whole number from 1 to {most}")
    })
}

/// A name out of a configuration, without what names do not have.
fn word(text: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.strip_prefix("torch.").unwrap_or(text).chars().filter(kept).take(WORD).collect()
}

fn unknown<T>(why: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Unknown(why.into()))
}

fn kept(part: &Part<'_>, kind: &str, heads: Option<u64>, gemma3: bool) -> Result<Kept, Trouble> {
    if part.whole.get("is_encoder_decoder").and_then(Value::as_bool) == Some(true) {
        return unknown("it has an encoder, whose cache is not known here");
    }
    let zero = |value: &Value| value.as_u64() == Some(0);
    if let Some(key) = OTHERWISE.iter().find(|key| part.get(key).is_some_and(|value| !zero(value))) {
        return unknown(format!(
            "a model of type `{kind}` with `{key}` keeps something else than keys and values"
        ));
    }
    if let Some(rank) = part.number(&["kv_lora_rank"], MOST)? {
        if !LATENT.contains(&kind) {
            return unknown(format!("how a model of type `{kind}` keeps compressed keys is not known here"));
        }
        let Some(rope) = part.number(&["qk_rope_head_dim"], MOST)? else {
            return unknown("`config.json` has `kv_lora_rank` and no `qk_rope_head_dim`");
        };
        return Ok(Kept::Latent { width: rank + rope });
    }
    let Some(heads) = heads else { return unknown("`config.json` does not say `num_attention_heads`") };
    let of_falcon = kind == "falcon" && !part.yes("new_decoder_architecture");
    let one = part.yes("multi_query") && (of_falcon || kind == "gpt_bigcode");
    let said = part.number(
        &[
            "n_head_kv",
            "num_kv_heads",
            "num_key_value_heads",
            "multi_query_group_num",
            "num_attention_groups",
        ],
        MOST,
    )?;
    let kv_heads = if one { 1 } else { said.or_else(|| gemma3.then_some(4)).unwrap_or(heads) };
    let width = match part.number(&["head_dim", "hidden_size_per_head", "kv_channels"], MOST)? {
        Some(width) => width,
        None if gemma3 => 256,
        None => match part.number(&["hidden_size", "n_embd", "d_model"], MOST)? {
            Some(hidden) if hidden >= heads => hidden / heads,
            Some(_) => return unknown("its hidden size is smaller than its number of heads"),
            None => return unknown("`config.json` says neither `head_dim` nor `hidden_size`"),
        },
    };
    Ok(Kept::Heads { heads: kv_heads, width })
}

/// How many layers see a window only, and how wide it is.
fn windows(part: &Part<'_>, kind: &str, layers: u64) -> Result<(u64, Option<u64>), Trouble> {
    if layers == 0 {
        return unknown("`config.json` does not say `num_hidden_layers`");
    }
    let sliding = || part.number(&["sliding_window"], LONGEST);
    if let Some(kinds) = part.get("layer_types").and_then(Value::as_array) {
        if kinds.len() as u64 != layers {
            return unknown(format!("`layer_types` names {} layers of {layers}", kinds.len()));
        }
        let (mut windowed, mut window) = (0, None);
        for kind in kinds {
            window = match kind.as_str() {
                Some("full_attention" | "attention") => continue,
                Some("sliding_attention") => sliding()?,
                Some("chunked_attention") => part.number(&["attention_chunk_size"], LONGEST)?,
                other => {
                    return unknown(format!("it has layers of kind `{}`", word(other.unwrap_or_default())));
                }
            };
            if window.is_none() {
                return unknown("`layer_types` has windows, and `config.json` does not say how wide");
            }
            windowed += 1;
        }
        return Ok((windowed, window));
    }
    if part.get("attention_chunk_size").is_some() {
        return unknown("`config.json` does not say which layers `attention_chunk_size` is of");
    }
    if part.get("use_sliding_window").and_then(Value::as_bool) == Some(false) {
        return Ok((0, None));
    }
    let Some(window) = sliding()? else { return Ok((0, None)) };
    let every = part.number(&["sliding_window_pattern"], MOST)?;
    let every = every.or_else(|| EVERY.iter().find(|(name, _)| *name == kind).map(|(_, every)| *every));
    match every {
        Some(every) => Ok((layers - layers / every, Some(window))),
        None if ALL_WINDOWED.contains(&kind) => Ok((layers, Some(window))),
        None => unknown(format!("which layers of a model of type `{kind}` see a window is not known here")),
    }
}

/// The longest text (vLLM, `_get_and_verify_max_len`): the smallest of the keys that say it, times the factor of
/// `rope_scaling` but for those kinds where the number has it already.
fn longest(part: &Part<'_>, gemma3: bool) -> Result<Option<u64>, String> {
    const KEYS: [&str; 8] = [
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
        "model_max_length",
        "max_sequence_length",
        "max_seq_length",
        "seq_len",
    ];
    let mut longest: Option<u64> = None;
    for key in KEYS {
        if let Some(length) = part.number(&[key], LONGEST)? {
            longest = Some(longest.map_or(length, |known| known.min(length)));
        }
    }
    if gemma3 {
        return Ok(longest.or_else(|| gemma3.then_some(131_072)));
    }
    let rope = ["rope_scaling", "rope_parameters"].iter().find_map(|key| part.get(key)?.as_object());
    let Some(rope) = rope else { return Ok(longest) };
    let form = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str).unwrap_or_default();
    if matches!(form, "su" | "longrope" | "llama3" | "mrope" | "default" | "") {
        return Ok(longest);
    }
    if form == "yarn"
        && let Some(first) = rope.get("original_max_position_embeddings").filter(|value| !value.is_null())
    {
        longest = Some(whole("original_max_position_embeddings", first, LONGEST)?);
    }
    let factor = rope.get("factor").and_then(Value::as_f64).unwrap_or(1.0);
    if !(1.0..=65_536.0).contains(&factor) {
        return Err(format!("`factor` of `rope_scaling` is {factor:?}, which stretches nothing"));
    }
    // Rounded down, as Python's `int` does.
    Ok(longest.and_then(|length| format!("{:.0}", (length as f64 * factor).floor()).parse().ok()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_no_model_can_be_is_refused_with_its_reason() {
        let nested = format!("{{\"text_config\":{}", "[".repeat(100_000));
        for (content, says) in [
            ("", "is not JSON"),
            ("{\"num_hidden_layers\": 3", "is not JSON"),
            ("\u{0}", "is not JSON"),
            (&*nested, "is not JSON"),
            ("[]", "is not an object"),
            ("null", "is not an object"),
            (r#"{"num_hidden_layers": 0}"#, "`num_hidden_layers` of `config.json` is 0"),
            (r#"{"num_hidden_layers": -1}"#, "is -1"),
            (r#"{"num_hidden_layers": 3.5}"#, "is 3.5"),
            (r#"{"num_hidden_layers": "32"}"#, "is \"32\""),
            (r#"{"num_hidden_layers": [32]}"#, "is [32]"),
            (r#"{"num_hidden_layers": 18446744073709551615}"#, "not a whole number from 1 to 1048576"),
            (r#"{"num_attention_heads": 1e400}"#, "is not JSON"),
            (r#"{"num_attention_heads": 8, "num_key_value_heads": 99999999999}"#, "`num_key_value_heads`"),
            (r#"{"num_attention_heads": 8, "head_dim": 0}"#, "`head_dim`"),
            (r#"{"max_position_embeddings": 0}"#, "`max_position_embeddings`"),
            (
                r#"{"max_position_embeddings": 9, "rope_scaling": {"rope_type": "linear", "factor": -4}}"#,
                "`factor` of `rope_scaling` is -4.0",
            ),
            (
                r#"{"max_position_embeddings": 9, "rope_scaling": {"rope_type": "linear", "factor": 1e300}}"#,
                "which stretches nothing",
            ),
        ] {
            let why = Shape::read(content.as_bytes()).unwrap_err();
            assert!(why.contains(says), "{says}: {why}");
            assert!(why.len() < 300, "{why}");
        }
    }

    #[test]
    fn words_hold_no_more_than_names_do() {
        let config = r#"{"model_type": "a\n`b` hub.corp.example/c", "torch_dtype": "torch.float16"}"#;
        let shape = Shape::read(config.as_bytes()).unwrap();
        assert_eq!((&*shape.kind, shape.dtype.as_deref()), ("abhubcorpexamplec", Some("float16")));
    }

    proptest! {
        #[test]
        fn never_panics(content: Vec<u8>, text in ".*") {
            let _ = Shape::read(&content);
            let _ = Shape::read(serde_json::json!({ "model_type": text, "sliding_window": text }).to_string().as_bytes());
        }
    }
}
