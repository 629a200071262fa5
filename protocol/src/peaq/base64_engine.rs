//! Standard base64 with padding, by the vector instructions of the processor where it has them: nearly all of a frame is base64.

use std::sync::LazyLock;

use base64::engine::general_purpose::PAD;

/// Reads and writes exactly what the plain engine of the same alphabet does.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) static BASE64: LazyLock<base64::engine::Simd> = LazyLock::new(|| base64::engine::Simd::standard(PAD));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) static BASE64: LazyLock<base64::engine::GeneralPurpose> =
    LazyLock::new(|| base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, PAD));
