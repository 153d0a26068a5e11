//! Shapes of models that exist, with what a token takes worked out by hand.

use proptest::prelude::*;

use super::{
    estimate::{Estimate, Level, Range},
    settings::Settings,
};
use crate::host::facts::{Kept, Shape};

const GIB: u64 = 1 << 30;

fn settings(engine: &str, more: &str) -> Settings {
    let text = format!("name: x\nengine: {engine}\nmodel: o/m\n{more}");
    Settings::of(&crate::profile::deployment::parse("x.yaml", &text).unwrap().deployment).unwrap()
}

fn shape(config: &str) -> Shape {
    Shape::read(config.as_bytes()).unwrap()
}

fn estimate<'a>(settings: &'a Settings, shape: &'a Shape) -> Estimate<'a> {
    Estimate { settings, shape, weights: 100 * GIB, memory: 80 * GIB }
}

fn exactly(bytes: u64) -> Range {
    Range { low: bytes, high: bytes }
}

const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "rope_scaling": {"factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "torch_dtype": "bfloat16", "vocab_size": 128256}"#;
const QWEN: &str = r#"{"model_type": "qwen2", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "max_position_embeddings": 32768, "max_window_layers": 70, "sliding_window": 131072,
    "use_sliding_window": false, "torch_dtype": "bfloat16"}"#;
const MIXTRAL: &str = r#"{"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "sliding_window": null,
    "max_position_embeddings": 32768, "torch_dtype": "bfloat16"}"#;
const DEEPSEEK: &str = r#"{"model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128, "v_head_dim": 128, "max_position_embeddings": 163840, "torch_dtype": "bfloat16",
    "rope_scaling": {"factor": 40, "original_max_position_embeddings": 4096, "type": "yarn"},
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}}"#;
const GEMMA: &str = r#"{"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
    "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
    "text_config": {"model_type": "gemma3_text", "hidden_size": 5376, "num_hidden_layers": 62, "head_dim": 128,
    "num_attention_heads": 32, "num_key_value_heads": 16, "sliding_window": 1024,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}}"#;
/// It leaves out heads and their width: 8, 4 and 256 (transformers, `Gemma3TextConfig`).
const GEMMA_4B: &str = r#"{"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": {"model_type": "gemma3_text",
    "hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024}}"#;
const FALCON: &str = r#"{"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
    "num_kv_heads": 71, "multi_query": true, "new_decoder_architecture": false, "torch_dtype": "bfloat16"}"#;
const CHATGLM: &str = r#"{"model_type": "chatglm", "hidden_size": 4096, "num_layers": 28, "num_attention_heads": 32,
    "multi_query_group_num": 2, "multi_query_attention": true, "kv_channels": 128, "seq_length": 8192,
    "torch_dtype": "float16"}"#;
const GPT2: &str =
    r#"{"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024}"#;

fn gpt_oss() -> Shape {
    let kinds = ["\"sliding_attention\"", "\"full_attention\""].repeat(18).join(",");
    shape(&format!(
        r#"{{"model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 36, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128, "max_position_embeddings": 131072,
        "rope_scaling": {{"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}},
        "quantization_config": {{"quant_method": "mxfp4"}}, "layer_types": [{kinds}]}}"#
    ))
}

#[test]
fn a_token_takes_what_was_worked_out_by_hand() {
    let vllm = settings("vllm", "");
    let cases = [
        // 2 × 32 layers × 8 heads × 128 wide (4096 / 32) × 2 bytes.
        (shape(LLAMA), 131_072, Some(131_072)),
        // 2 × 80 × 8 × 128 × 2; the window is switched off.
        (shape(QWEN), 327_680, Some(32_768)),
        // Experts keep nothing: as Llama.
        (shape(MIXTRAL), 131_072, Some(32_768)),
        // 61 layers × (512 + 64) × 2 bytes, once for all heads; 4096 × 40.
        (shape(DEEPSEEK), 70_272, Some(163_840)),
        // 2 × 62 × 16 × 128 × 2.
        (shape(GEMMA), 507_904, Some(131_072)),
        // 2 × 34 × 4 × 256 × 2.
        (shape(GEMMA_4B), 139_264, Some(131_072)),
        // 2 × 36 × 8 × 64 × 2; 4096 × 32.
        (gpt_oss(), 73_728, Some(131_072)),
        // 2 × 32 × 1 × 64 (4544 / 71) × 2.
        (shape(FALCON), 8_192, None),
        // 2 × 28 × 2 × 128 × 2.
        (shape(CHATGLM), 28_672, Some(8_192)),
        // 2 × 12 × 12 × 64 × 2: the type is the deployment's.
        (shape(GPT2), 36_864, Some(1_024)),
    ];
    for (shape, bytes, longest) in cases {
        let kind = &shape.kind;
        assert_eq!(estimate(&vllm, &shape).cache(1, 1), Some(exactly(bytes)), "{kind}: {shape:?}");
        assert_eq!(shape.longest, longest, "{kind}");
    }
    assert_eq!(shape(DEEPSEEK).quantised.as_deref(), Some("fp8"));
    assert_eq!(gpt_oss().windowed, 18);
}

#[test]
fn shards_stages_types_and_windows_count() {
    let (vllm, qwen, deepseek) = (settings("vllm", ""), shape(QWEN), shape(DEEPSEEK));
    let estimate = |settings, shape| estimate(settings, shape);
    // 327,680 over 4; with 16 GPUs each of 8 heads is on two of them.
    assert_eq!(estimate(&vllm, &qwen).cache(4, 1), Some(exactly(81_920)));
    assert_eq!(estimate(&vllm, &qwen).cache(16, 1), Some(exactly(40_960)));
    // Compressed keys are on each GPU.
    assert_eq!(estimate(&vllm, &deepseek).cache(8, 1), Some(exactly(70_272)));
    // 61 layers over 2 stages: 31 on the first, 31 × 576 × 2.
    let stages = settings("vllm", "extra_args: ['-pp', '2']\n");
    assert_eq!(estimate(&stages, &deepseek).cache(8, 1), Some(exactly(35_712)));
    // One byte a number instead of two.
    let small = settings("vllm", "extra_args: ['--kv-cache-dtype=fp8']\n");
    assert_eq!(estimate(&small, &qwen).cache(1, 1), Some(exactly(163_840)));
    // 10 layers keep all of 131,072 tokens, 52 keep 1,024 and the 8,192 that are worked on; 8,192 bytes each.
    let gemma = shape(GEMMA);
    let whole = 62 * 131_072 * 8_192;
    let windowed = (10 * 131_072 + 52 * (1_024 + 8_192)) * 8_192;
    assert_eq!(estimate(&vllm, &gemma).cache(1, 131_072), Some(exactly(windowed)));
    let sglang = settings("sglang", "");
    assert_eq!(estimate(&sglang, &gemma).cache(1, 131_072), Some(Range { low: windowed, high: whole }));
    // 100 GiB of weights over 4; stored in four bytes a number, computed in two; quantised while loaded.
    assert_eq!(estimate(&vllm, &qwen).weights(4), exactly(25 * GIB));
    let wide = Shape { dtype: Some("float32".to_owned()), ..qwen.clone() };
    assert_eq!(estimate(&vllm, &wide).weights(1), exactly(50 * GIB));
    let fp8 = settings("vllm", "extra_args: ['--quantization', 'fp8']\n");
    assert_eq!(estimate(&fp8, &qwen).weights(1), Range { low: 50 * GIB, high: 100 * GIB });
    // A configuration that asks for a quantised cache: one byte or two.
    let asks = Shape { quantised_cache: true, ..qwen.clone() };
    assert_eq!(estimate(&vllm, &asks).cache(1, 1), Some(Range { low: 163_840, high: 327_680 }));
}

#[test]
fn memory_is_as_the_engines_count_it() {
    let (vllm, sglang, qwen) = (settings("vllm", ""), settings("sglang", ""), shape(QWEN));
    assert_eq!(estimate(&vllm, &qwen).room(4) / GIB, 71);
    // 80 − (9.5 + 4 / 2).
    assert_eq!(estimate(&sglang, &qwen).room(4) * 2 / GIB, 137);
    let tiny = Estimate { memory: GIB, ..estimate(&sglang, &qwen) };
    assert_eq!(tiny.room(1), 0);
}

#[test]
fn what_is_not_known_is_said() {
    for (config, says) in [
        (r#"{"model_type": "jamba", "attn_layer_period": 8}"#, "`attn_layer_period`"),
        (r#"{"model_type": "qwen3_next", "full_attention_interval": 4}"#, "`full_attention_interval`"),
        (r#"{"model_type": "deepseek_v32", "index_topk": 2048}"#, "`index_topk`"),
        (r#"{"model_type": "minicpm3", "kv_lora_rank": 256}"#, "compressed keys"),
        (r#"{"model_type": "mpt", "attn_config": {}}"#, "`attn_config`"),
        (r#"{"model_type": "t5", "is_encoder_decoder": true}"#, "an encoder"),
        (r#"{"model_type": "new"}"#, "`num_attention_heads`"),
        (r#"{"model_type": "new", "num_attention_heads": 8}"#, "neither `head_dim` nor `hidden_size`"),
        (r#"{"num_attention_heads": 8, "hidden_size": 4}"#, "smaller than its number of heads"),
        (r#"{"num_attention_heads": 8, "head_dim": 4}"#, "`num_hidden_layers`"),
        (
            r#"{"num_attention_heads": 8, "head_dim": 4, "num_hidden_layers": 2, "sliding_window": 9}"#,
            "which layers of a model of type",
        ),
        (
            r#"{"num_attention_heads": 8, "head_dim": 4, "num_hidden_layers": 2, "layer_types": ["full_attention"]}"#,
            "names 1 layers of 2",
        ),
        (
            r#"{"num_attention_heads": 8, "head_dim": 4, "num_hidden_layers": 1, "layer_types": ["linear_attention"]}"#,
            "of kind `linear_attention`",
        ),
    ] {
        let shape = shape(config);
        let Kept::Unknown { why } = &shape.kept else { panic!("{config}: {shape:?}") };
        assert!(why.contains(says), "{config}: {why}");
        assert_eq!(estimate(&settings("vllm", ""), &shape).cache(1, 1), None);
    }
}

proptest! {
    #[test]
    fn what_is_suggested_fits_and_nothing_better_does(
        layers in 1_u64..200, kv in prop::sample::select(vec![1_u64, 2, 4, 8, 16]), groups in 1_u64..9,
        width in 1_u64..512, weights in 1_u64..2_000, memory in 1_u64..300, context in 1_u64..2_000_000,
        latent: bool, sglang: bool, tensor in 1_u64..9,
    ) {
        let mut settings = settings(if sglang { "sglang" } else { "vllm" }, "");
        settings.tensor = tensor;
        let shape = Shape {
            layers: Some(layers),
            heads: Some(kv * groups),
            kept: if latent { Kept::Latent { width } } else { Kept::Heads { heads: kv, width } },
            ..Shape::default()
        };
        let estimate =
            Estimate { settings: &settings, shape: &shape, weights: weights * GIB, memory: memory * GIB };
        let suggestion = estimate.suggestion(Some(context));
        if let Some(fit) = suggestion.tensor {
            prop_assert_eq!(estimate.level(fit, Some(context)), Level::Fits);
            prop_assert_eq!(Estimate::undealt(&shape, fit), None);
            for less in (1..fit).filter(|less| Estimate::undealt(&shape, *less).is_none()) {
                prop_assert_ne!(estimate.level(less, Some(context)), Level::Fits);
            }
        }
        if let Some(fit) = suggestion.context {
            prop_assert_eq!(estimate.level(tensor, Some(fit)), Level::Fits);
            let next = fit + if fit >= 1024 { 1024 } else { 1 };
            prop_assert!(next > context || estimate.level(tensor, Some(next)) != Level::Fits);
        } else {
            prop_assert_ne!(estimate.level(tensor, Some(1)), Level::Fits);
        }
    }

    #[test]
    fn no_number_overflows(
        layers: u64, heads: u64, kv: u64, width: u64, weights: u64, memory: u64, context: u64, window: u64,
    ) {
        let config = serde_json::json!({
            "model_type": "mistral", "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv, "head_dim": width, "sliding_window": window,
            "max_position_embeddings": context,
        });
        prop_assert!(Shape::read(config.to_string().as_bytes()).is_ok() || layers.max(heads).max(kv) > 1 << 20
            || width > 1 << 20 || window.max(context) > 1 << 40
            || [layers, heads, kv, width, window, context].contains(&0));
        // The largest that is read.
        let most = 1 << 20;
        let shape = Shape {
            layers: Some(most), heads: Some(most), kept: Kept::Heads { heads: most, width: most },
            windowed: most / 2, window: Some(window), ..Shape::default()
        };
        for engine in ["vllm", "sglang"] {
            let settings = settings(engine, "");
            let estimate = Estimate { settings: &settings, shape: &shape, weights, memory };
            let _ = (estimate.level(1, Some(context)), estimate.level(most, Some(context)));
        }
    }
}
