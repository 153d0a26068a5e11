use std::collections::BTreeMap;

use super::*;
use crate::lock::cuda::tables::tables;

fn facts(cuda: Option<&str>, require: &[(&str, &str)]) -> ImageFacts {
    ImageFacts {
        cuda: cuda.map(str::to_owned),
        require: require.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
        ..ImageFacts::default()
    }
}

#[allow(clippy::unnecessary_wraps)]
fn gpu(model: &str) -> Option<GpuFacts> {
    Some(GpuFacts { model: Some(model.to_owned()), ..GpuFacts::default() })
}

/// What the CUDA 12.8 images of the vendor say, shortened.
const REQUIRE_128: &str = "cuda>=12.8 brand=unknown,driver>=535,driver<536 brand=tesla,driver>=535,driver<536 \
    brand=nvidia,driver>=535,driver<536 brand=tesla,driver>=550,driver<551 brand=nvidia,driver>=550,driver<551";

#[test]
fn the_example_of_the_design() {
    let verdict = judge(
        &facts(Some("12.8.1"), &[("NVIDIA_REQUIRE_CUDA", REQUIRE_128)]),
        Some("550.163.01"),
        gpu("H100"),
    );
    assert_eq!(verdict.outcome, Minor);
    assert_eq!(
        verdict.because,
        "CUDA 12.8 wants driver 570.26 for its full feature level; 550.163.01 is at or above the 12.x floor 525.60.13"
    );
}

#[test]
fn verdicts() {
    let require = "NVIDIA_REQUIRE_CUDA";
    // CUDA_VERSION, requirement, driver, model → outcome, and a part of the sentence
    for (cuda, requirement, driver, model, outcome, part) in [
        (Some("12.8.1"), None, Some("570.26"), "H100", Native, "570.26"),
        (Some("12.8.1"), None, Some("570"), "H100", Unknown, "both sides"),
        (Some("12.8.1"), None, Some("575"), "H100", Native, "driver branch 575"),
        (Some("12.8.1"), None, Some("550"), "H100", Minor, "driver branch 550"),
        (Some("12.4.1"), None, Some("550"), "H100", Unknown, "550.54.14"),
        (Some("12.4.1"), None, Some("525"), "H100", Unknown, "525.60.13"),
        (Some("12.8.1"), None, Some("525.60.13"), "H100", Minor, "floor"),
        (Some("12.8.1"), None, Some("525.60.12"), "H100", Unknown, "configuration does not show"),
        (Some("12.8.1"), None, Some("470.256.02"), "GeForce RTX 3090", Refuse, "804"),
        (Some("12.8.1"), None, Some("470.256.02"), "RTX A6000", Unknown, "eligible"),
        (Some("12.8.1"), None, Some("470.256.02"), "X9000", Unknown, "eligible"),
        (Some("12.8.1"), Some(REQUIRE_128), Some("555.42.02"), "H100", Refuse, "does not list its branch"),
        (Some("12.8.1"), Some(REQUIRE_128), Some("470.256.02"), "H100", Refuse, "below the 12.x floor"),
        (Some("12.8.1"), Some("cuda>=12.8"), Some("550.163.01"), "H100", Refuse, "offers CUDA 12.4"),
        (Some("12.8.1"), Some("cuda>=12.8"), Some("575.51.03"), "H100", Native, ""),
        (Some("12.8.1"), Some("arch>=9.0"), Some("575.51.03"), "A100", Refuse, "compute capability is 8.0"),
        (
            Some("12.8.1"),
            Some("arch>=9.0"),
            Some("575.51.03"),
            "X9000",
            Unknown,
            "compute capability is not known",
        ),
        (Some("12.8.1"), Some("cuda>=12.8 mystery>=1"), Some("575.51.03"), "H100", Unknown, "mystery"),
        (Some("12.8.1"), Some("gpu"), Some("575.51.03"), "H100", Unknown, "operator"),
        (Some("13.0.0"), None, Some("580.65.06"), "V100", Refuse, "volta"),
        (Some("13.0.0"), None, Some("580.65.06"), "P100", Refuse, "pascal"),
        (Some("13.0.0"), None, Some("580.65.06"), "M60", Refuse, "maxwell"),
        (Some("13.0.0"), None, Some("580.65.06"), "T4", Native, ""),
        (Some("13.0.0"), None, Some("580.65.06"), "X9000", Unknown, "architecture"),
        (Some("13.0.0"), None, None, "V100", Refuse, "volta"),
        (Some("12.9.0"), None, Some("575.51.03"), "V100", Native, ""),
        (Some("13.1.0"), None, Some("580.65.06"), "B200", Minor, "580.0"),
        (Some("14.0.0"), None, Some("610.43.02"), "H100", Unknown, "newer than the table"),
        (Some("10.2"), None, Some("550.163.01"), "V100", Unknown, "not in the table"),
        (Some("12.7.0"), None, Some("550.163.01"), "H100", Unknown, "not in the table"),
        (Some("twelve"), None, Some("550.163.01"), "H100", Unknown, "not a version"),
        (Some("12.8.1"), None, None, "H100", Unknown, "driver's version is not known"),
        (Some("12.8.1"), None, Some("5x0"), "H100", Unknown, "not a driver version"),
        (None, None, Some("550.163.01"), "H100", Unknown, "neither"),
        (None, Some("cuda>=12.4"), Some("550.163.01"), "H100", Native, "12.4"),
        (None, Some("driver>=535"), Some("550.163.01"), "H100", Unknown, "names no CUDA version"),
    ] {
        let requirement: Vec<(&str, &str)> = requirement.map(|value| (require, value)).into_iter().collect();
        let verdict = judge(&facts(cuda, &requirement), driver, gpu(model));
        let case = format!("{cuda:?} {requirement:?} {driver:?} {model}: {}", verdict.because);
        assert_eq!(verdict.outcome, outcome, "{case}");
        assert!(verdict.because.contains(part), "{case}");
        assert!(!verdict.because.ends_with('.') && !verdict.because.contains('\n'), "{case}");
    }
}

#[test]
fn every_row_of_the_tables() {
    let tables = tables();
    for (release, driver) in &tables.toolkit {
        let image = facts(Some(&format!("{}.{}.0", release.0, release.1)), &[]);
        let at = tables.wanted_text(*release).unwrap();
        assert_eq!(judge(&image, Some(at), gpu("T4")).outcome, Native, "{release:?} with {at}");
        let floor = tables.floor_text(release.0).unwrap();
        let expected = if tables.floor[&release.0] < *driver { Minor } else { Native };
        assert_eq!(judge(&image, Some(floor), gpu("T4")).outcome, expected, "{release:?} with {floor}");
        let branch_below = (tables.floor[&release.0].major() - 1).to_string();
        assert_eq!(judge(&image, Some(&branch_below), gpu("T4")).outcome, Unknown, "{release:?}");
        assert_eq!(
            judge(&image, Some(&branch_below), gpu("GeForce RTX 2080")).outcome,
            Refuse,
            "{release:?}"
        );
    }
    for (major, architectures) in &tables.dropped {
        let image = facts(Some(&format!("{major}.0.0")), &[]);
        for model in models() {
            let name = tables::architecture(model.compute_capability).unwrap();
            let verdict = judge(&image, Some("999.0.1"), gpu(&model.name));
            let dropped = architectures.iter().any(|dropped| dropped == name);
            assert_eq!(
                verdict.outcome == Refuse,
                dropped,
                "CUDA {major} on {}: {}",
                model.name,
                verdict.because
            );
        }
    }
}

#[test]
fn forward_only_with_evidence() {
    let image = facts(Some("12.8.1"), &[]);
    for (model, libraries, outcome) in [
        ("H100", Some(true), Forward),
        ("H100", Some(false), Refuse),
        ("H100", None, Unknown),
        ("GeForce RTX 4090", Some(true), Refuse),
        ("RTX A6000", Some(true), Unknown),
    ] {
        let verdict = judge_with_libraries(&image, Some("470.256.02"), gpu(model), libraries);
        assert_eq!(verdict.outcome, outcome, "{model} {libraries:?}: {}", verdict.because);
    }
}

#[test]
fn a_disabled_requirement_is_not_held_against_the_driver() {
    let mut image = facts(Some("12.8.1"), &[("NVIDIA_REQUIRE_CUDA", "cuda>=12.8")]);
    assert_eq!(judge(&image, Some("550.163.01"), gpu("H100")).outcome, Refuse);
    image.disable_require = true;
    assert_eq!(judge(&image, Some("550.163.01"), gpu("H100")).outcome, Minor);
}

#[test]
fn a_stated_capability_and_brand_need_no_model() {
    let image = facts(Some("13.0.0"), &[("NVIDIA_REQUIRE_CUDA", "brand=tesla,arch>=8.0")]);
    let stated = |capability, brand: &str| {
        Some(GpuFacts { model: None, compute_capability: Some(capability), brand: Some(brand.to_owned()) })
    };
    assert_eq!(judge(&image, Some("580.65.06"), stated((9, 0), "Tesla")).outcome, Native);
    assert_eq!(judge(&image, Some("580.65.06"), stated((7, 0), "tesla")).outcome, Refuse);
    assert_eq!(judge(&image, Some("580.65.06"), stated((9, 0), "geforce")).outcome, Refuse);
}

#[test]
fn the_profile_decides() {
    let cuda = facts(Some("12.8.1"), &[]);
    let plain = facts(None, &[]);
    let mut profile = crate::lock::tests::profile();
    profile.driver.version = Some("550.163.01".to_owned());
    assert_eq!(verdict(&cuda, &profile, None).outcome, Minor);
    assert_eq!(verdict(&plain, &profile, None).outcome, Unknown);
    // The container toolkit reads the image as `cuda>=12.8` and its runtime refuses it.
    profile.container.gpu_access = GpuAccess::NvidiaRuntime;
    assert_eq!(verdict(&cuda, &profile, None).outcome, Refuse);
    profile.driver.flavor = DriverFlavor::None;
    profile.container.gpu_access = GpuAccess::None;
    assert_eq!(verdict(&plain, &profile, None).outcome, NotApplicable);
    assert_eq!(verdict(&cuda, &profile, None).outcome, Refuse);
}

#[test]
fn driver_wanted_is_as_the_table_writes_it() {
    assert_eq!(driver_wanted("12.4.1"), Some("550.54.14"));
    assert_eq!(driver_wanted("12.8"), Some("570.26"));
    assert_eq!(driver_wanted("99.1"), None);
    assert_eq!(driver_wanted("x"), None);
}
