"""What does not work with our MODEL, and why."""

#: What can't be had, and why.
LIMITS = (
    (
        "KSampler on several videos whose conditioning was made without the latent",
        "KSampler passes on only the numbers of a LATENT, so they are taken for one long video. Connect the latent to VideoCrafter "
        "Conditioning (or Image to Video); VideoCrafter Sampler knows by itself.",
    ),
    (
        "LatentBatch of videos from VAEEncode",
        "Only Empty VideoCrafter Latent says how many frames a video has; a batch of anything else is one video. The same for "
        "RebatchLatents, which drops what a LATENT says.",
    ),
    ("LoRA for the image projector", "ComfyUI looks for LoRA keys in the UNet and the text encoder only."),
    ("LoRA for relative position tables (VideoCrafter1)", "They are no matrices of weights; ComfyUI's names don't reach them."),
    (
        "ContextWindowsManual's causal_window_fix",
        "Without effect, whatever it is set to: these models see as many frames as they were trained on.",
    ),
    (
        "A steady motion over context windows",
        "Windows are made apart and only averaged where they overlap, so a motion may jump there.",
    ),
    ("Latent previews of several videos at once", "The first video is shown, as ComfyUI shows the first picture of a batch."),
    (
        "heun and dpm_2_ancestral in four steps of the normal scheduler with DynamiCrafter",
        "Its schedule begins without any signal, and their extrapolation over that first step makes numbers 80 and 20 times too large.",
    ),
)
