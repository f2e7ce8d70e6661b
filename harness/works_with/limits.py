"""What does not work with our MODEL, and why."""

#: What can't be had, and why.
LIMITS = (
    (
        "KSampler with several videos, if the latent is not connected to the conditioning node",
        "KSampler does not pass on how many frames each video has, so all frames become one long video. Connect the latent to VideoCrafter "
        "Conditioning (or Image to Video), or use VideoCrafter Sampler.",
    ),
    (
        "LatentBatch of videos from VAEEncode",
        "Only Empty VideoCrafter Latent stores how many frames a video has; any other batch is one video. RebatchLatents has the same "
        "limit: it drops this information.",
    ),
    ("LoRA for the image projector", "ComfyUI looks for LoRA keys in the UNet and the text encoder only."),
    ("LoRA for relative position tables (VideoCrafter1)", "They are not weight matrices, so ComfyUI's LoRA names do not include them."),
    (
        "ContextWindowsManual's causal_window_fix",
        "It has no effect: these models always see as many frames as they were trained on.",
    ),
    (
        "Steady motion across context windows",
        "Windows are sampled separately and averaged where they overlap, so the motion may jump there.",
    ),
    ("Latent previews of several videos at once", "Only the first video is shown, as ComfyUI shows only the first image of a batch."),
    (
        "heun and dpm_2_ancestral with DynamiCrafter, the normal scheduler and four steps",
        "Its noise schedule starts without any signal. These samplers extrapolate over the first step, and the values become 80 and "
        "20 times too large.",
    ),
)
