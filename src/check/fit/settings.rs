//! What a deployment asks of the engine, as far as memory goes: its fields, and what `extra_args` say over them.

use crate::profile::{Deployment, deployment::Engine};

/// Options that change what a GPU holds in ways that are not estimated here: (vLLM) and (SGLang).
const CHANGES: [&[&str]; 2] = [
    &[
        "--config",
        "--cpu-offload-gb",
        "--data-parallel-size",
        "-dp",
        "--decode-context-parallel-size",
        "-dcp",
        "--hf-config-path",
        "--hf-overrides",
        "--kv-cache-memory",
        "--kv-cache-memory-bytes",
        "--nnodes",
        "--num-gpu-blocks-override",
        "--prefill-context-parallel-size",
        "--revision",
        "--speculative-config",
    ],
    &[
        "--attention-context-parallel-size",
        "--config",
        "--cpu-offload-gb",
        "--data-parallel-size",
        "--dp",
        "--dp-size",
        "--enable-dp-attention",
        "--json-model-override-args",
        "--max-total-tokens",
        "--nnodes",
        "--revision",
        "--speculative-algorithm",
        "--speculative-draft-model-path",
    ],
];

/// What decides how much memory an engine takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) engine: Engine,
    /// Tensor parallel size.
    pub(super) tensor: u64,
    /// Pipeline parallel size.
    pub(super) pipeline: u64,
    /// Longest context in tokens, where it is said.
    pub(super) context: Option<u64>,
    /// The engine takes as long a context as fits.
    pub(super) context_as_fits: bool,
    /// The part of a GPU's memory that the engine may take, in thousandths, where it is said.
    pub(super) share: Option<u64>,
    /// Bytes of a number that the engine computes with, where it is said.
    pub(super) number: Option<u64>,
    /// Bytes of a number in the cache, where it is said.
    pub(super) cached: Option<u64>,
    /// The method by which weights are quantised while they are loaded.
    pub(super) quantisation: Option<String>,
    /// Tokens that are worked on at once, where it is said.
    pub(super) batch: Option<u64>,
    /// How to write another tensor parallel size, and another length: the field or the option that says it now.
    pub(super) words: (&'static str, &'static str),
}

impl Settings {
    /// Reads a deployment's. The error says which option keeps its memory from being estimated.
    pub(super) fn of(deployment: &Deployment) -> Result<Self, String> {
        let args = Args(&deployment.extra_args);
        let engine = deployment.engine;
        let (changes, tensor, pipeline, context, share, share_said) = match engine {
            Engine::Vllm => (
                CHANGES[0],
                &["--tensor-parallel-size", "-tp"][..],
                &["--pipeline-parallel-size", "-pp"][..],
                "--max-model-len",
                "--gpu-memory-utilization",
                Some(900),
            ),
            Engine::Sglang => (
                CHANGES[1],
                &["--tp", "--tp-size", "--tensor-parallel-size"][..],
                &["--pp", "--pp-size", "--pipeline-parallel-size"][..],
                "--context-length",
                "--mem-fraction-static",
                None,
            ),
        };
        if let Some(option) = changes.iter().find(|option| args.has(option)) {
            return Err(format!(
                "`{option}` in `extra_args` changes what the GPUs hold, which is not estimated"
            ));
        }
        let whole = |names: &[&str]| match args.last(names) {
            None => Ok(None),
            Some((name, value)) => match value.parse::<u64>() {
                Ok(number) if (1..=1 << 20).contains(&number) => Ok(Some(number)),
                _ => Err(odd(name, value)),
            },
        };
        let over = whole(tensor)?;
        let said = args.last(&[context]);
        let as_fits = said.is_some_and(|(_, value)| matches!(value, "auto" | "-1"));
        let length = match said {
            Some(_) if as_fits => None,
            Some((name, value)) => Some(tokens(value).ok_or_else(|| odd(name, value))?),
            None => deployment.max_model_len,
        };
        let number = match args.last(&["--dtype"]).map(|(_, value)| value).or(deployment.dtype.as_deref()) {
            None | Some("auto") => None,
            Some(name) => {
                Some(bytes(name).ok_or_else(|| format!("how large a `{name}` is, is not known here"))?)
            }
        };
        let cached = match args.last(&["--kv-cache-dtype"]) {
            None | Some((_, "auto")) => None,
            Some((name, value)) => Some(bytes(value).ok_or_else(|| odd(name, value))?),
        };
        Ok(Self {
            engine,
            tensor: over.unwrap_or_else(|| deployment.tensor_parallel.into()),
            pipeline: whole(pipeline)?.unwrap_or(1),
            context: length,
            context_as_fits: as_fits,
            share: match args.last(&[share]) {
                None => share_said,
                Some((name, value)) => Some(thousandths(value).ok_or_else(|| odd(name, value))?),
            },
            number,
            cached,
            quantisation: args.last(&["--quantization", "-q"]).map(|(_, method)| method.to_owned()),
            batch: whole(&["--max-num-batched-tokens"])?,
            words: (
                if over.is_some() { "--tensor-parallel-size" } else { "tensor_parallel" },
                match (said, engine) {
                    (None, _) => "max_model_len",
                    (_, Engine::Vllm) => "--max-model-len",
                    (_, Engine::Sglang) => "--context-length",
                },
            ),
        })
    }
}

fn odd(name: &str, value: &str) -> String {
    let shown: String = value.chars().take(40).collect();
    format!("`{name}` in `extra_args` is `{shown}`, which is not known here")
}

/// Bytes of a number of this type, as vLLM's and SGLang's options name it.
pub(super) fn bytes(dtype: &str) -> Option<u64> {
    match dtype {
        "float32" | "float" | "fp32" => Some(4),
        "bfloat16" | "float16" | "half" | "bf16" | "fp16" => Some(2),
        "int8" | "fp8" | "fp8_e4m3" | "fp8_e5m2" | "fp8_inc" | "float8_e4m3fn" | "float8_e5m2" => Some(1),
        _ => None,
    }
}

/// A length as vLLM's `--max-model-len` takes it: `32k` is 32,000, `32K` is 32,768.
fn tokens(text: &str) -> Option<u64> {
    let (digits, unit) = match text.char_indices().last()? {
        (at, 'k') => (text.get(..at)?, 1000),
        (at, 'm') => (text.get(..at)?, 1_000_000),
        (at, 'K') => (text.get(..at)?, 1 << 10),
        (at, 'M') => (text.get(..at)?, 1 << 20),
        _ => (text, 1),
    };
    let number = match digits.parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit)?,
        // Only small letters take a fraction: `25.6k`.
        Err(_) if unit % 1000 == 0 => scaled(digits, unit)?,
        Err(_) => return None,
    };
    (1..=1 << 40).contains(&number).then_some(number)
}

fn thousandths(text: &str) -> Option<u64> {
    scaled(text, 1000).filter(|share| (1..=1000).contains(share))
}

/// A decimal fraction times `by`, rounded.
fn scaled(text: &str, by: u64) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    if !(0.0..=1e9).contains(&number) {
        return None;
    }
    format!("{:.0}", number * by as f64).parse().ok()
}

/// Arguments as the engines' parsers take them: `--name value`, `--name=value`, underscores for dashes; the last counts.
struct Args<'d>(&'d [String]);

impl<'d> Args<'d> {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| split(argument).0 == name)
    }

    /// The last of these options, with its value.
    fn last<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &'d str)> {
        let mut found = None;
        for (at, argument) in self.0.iter().enumerate() {
            let (own, value) = split(argument);
            if let Some(name) = names.iter().find(|name| **name == own) {
                let next = || self.0.get(at + 1).map(String::as_str);
                found = Some((*name, value.or_else(next).unwrap_or_default()));
            }
        }
        found
    }
}

fn split(argument: &str) -> (String, Option<&str>) {
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (argument, None),
    };
    if name.starts_with("--") { (name.replace('_', "-"), value) } else { (name.to_owned(), value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_the_engines_read_them() {
        let parse = |engine: &str, args: &str| {
            let text = format!("name: x\nengine: {engine}\nmodel: o/m\nextra_args: {args}\n");
            Settings::of(&crate::profile::deployment::parse("x.yaml", &text).unwrap().deployment)
        };
        let plain = parse("vllm", "[]").unwrap();
        assert_eq!((plain.tensor, plain.pipeline, plain.context, plain.share), (1, 1, None, Some(900)));
        assert_eq!((plain.number, plain.cached), (Some(2), None));
        let given = parse(
            "vllm",
            "['--max_model_len=25.6k', '-pp', '2', '--tensor-parallel-size', '4', '--gpu-memory-utilization', '0.85', \
             '--kv-cache-dtype', 'fp8', '-tp', '8']",
        )
        .unwrap();
        assert_eq!((given.tensor, given.pipeline, given.context), (8, 2, Some(25_600)));
        assert_eq!((given.share, given.cached), (Some(850), Some(1)));
        assert_eq!(given.words, ("--tensor-parallel-size", "--max-model-len"));
        assert_eq!(parse("vllm", "['--max-model-len', '32K']").unwrap().context, Some(32_768));
        assert!(parse("vllm", "['--max-model-len', 'auto']").unwrap().context_as_fits);
        let other = parse("sglang", "['--mem-fraction-static', '0.8', '--context-length', '9']").unwrap();
        assert_eq!((other.share, other.context), (Some(800), Some(9)));
        assert_eq!(parse("sglang", "[]").unwrap().share, None);
        for (engine, args, says) in [
            ("vllm", "['--cpu-offload-gb', '8']", "`--cpu-offload-gb`"),
            ("vllm", "['--cpu_offload_gb=8']", "`--cpu-offload-gb`"),
            ("sglang", "['--dp', '2']", "`--dp`"),
            ("vllm", "['--gpu-memory-utilization', '1.5']", "is `1.5`"),
            ("vllm", "['--gpu-memory-utilization', 'nan']", "is `nan`"),
            ("vllm", "['--gpu-memory-utilization']", "is ``"),
            ("vllm", "['-tp', '0']", "`-tp` in `extra_args` is `0`"),
            ("vllm", "['-tp', '18446744073709551616']", "`-tp` in `extra_args` is `1844"),
            ("vllm", "['--max-model-len', '99999999999999999999k']", "`--max-model-len`"),
            ("vllm", "['--kv-cache-dtype', 'fp5']", "is `fp5`"),
        ] {
            let why = parse(engine, args).unwrap_err();
            assert!(why.contains(says), "{args}: {why}");
        }
    }
}
