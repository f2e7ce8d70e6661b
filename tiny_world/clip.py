"""Trains a text tower together with an image tower by contrast (CLIP; Radford et al., arXiv:2103.00020).

A still image shows no direction, and there are only eighteen combinations of colour and shape, so each occurs several times in a
batch. An image's positives are therefore all sentences that are true of it. A second loss predicts, from each token after the end
of a sentence, the colour, shape and direction in the sentence, or that it has none: the UNet reads these tokens, one layer before
the tower's end. Of images, the UNet reads all tokens of the last layer, so a third loss predicts colour, shape and position from
these; the contrastive loss would not teach them positions, which no sentence mentions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

from vc_core.config import ImageEncoderConfig, TextEncoderConfig
from vc_core.models.image_encoder import prepare_images
from vc_core.models.text_encoder import tokenize
from vc_core.training.trainer import Pass

from .settings import ClipTraining, EmbeddingTraining
from .world import COLOURS, DIRECTIONS, SHAPES, UNSAID, WORDINGS, World, render, sample, sentence


class AttributeClip(nn.Module):
    """OpenCLIP's two towers, as `clip` with the published names, and linear readers of the attributes, used in training only."""

    def __init__(self, text: TextEncoderConfig, image: ImageEncoderConfig) -> None:
        super().__init__()
        self.image_size = image.image_size
        vision_config = CLIPVisionCfg(
            layers=image.layers, width=image.width, head_width=image.width // image.heads, patch_size=image.patch_size,
            image_size=image.image_size, output_tokens=True,
        )
        text_config = CLIPTextCfg(
            context_length=text.context_length, vocab_size=text.vocab_size, width=text.width, heads=text.heads, layers=text.layers
        )
        self.clip = CLIP(text.embed_dim, vision_config, text_config)
        # The last class of each is "not said"; the one before it, of directions, is "still".
        self.counts = (len(COLOURS) + 1, len(SHAPES) + 1, len(DIRECTIONS) + 2)
        self.read_text = nn.Linear(text.width, sum(self.counts))
        self.read_image = nn.Linear(image.width, len(COLOURS) + len(SHAPES) + 2)
        with torch.no_grad():
            self.clip.visual.positional_embedding.copy_(plane_positions(image.image_size // image.patch_size, image.width))

    def text_features(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`tokens [B, L]` to the penultimate layer's normed tokens `[B, L, width]` and the sentence's embedding `[B, E]`."""
        clip = self.clip
        hidden = clip.token_embedding(tokens) + clip.positional_embedding
        blocks = list(clip.transformer.resblocks)
        for block in blocks[:-1]:
            hidden = block(hidden, attn_mask=clip.attn_mask)
        penultimate = clip.ln_final(hidden)
        hidden = clip.ln_final(blocks[-1](hidden, attn_mask=clip.attn_mask))
        ends = tokens.argmax(dim=-1)  # the end token has the largest number
        embedding = hidden[torch.arange(len(tokens)), ends] @ clip.text_projection
        return penultimate, F.normalize(embedding, dim=-1)


def plane_positions(side: int, width: int) -> Tensor:
    """Positional embeddings to start from, `[1 + side^2, width]`: waves over y and over x, zero for the class token.

    From random ones a tower needs thousands of updates to learn which patches are neighbours.
    """
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    waves = torch.pi / 2 * 2.0 ** torch.linspace(-1, 3, width // 4)
    line = torch.cat([(axis[:, None] * waves).sin(), (axis[:, None] * waves).cos()], dim=1)  # [side, width / 2]
    plane = torch.cat([line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)], dim=2)
    return torch.cat([torch.zeros(1, width), plane.flatten(0, 1)])


def spread_target(matches: Tensor) -> Tensor:
    """Rows of a 0/1 matrix as probabilities."""
    return matches / matches.sum(1, keepdim=True).clamp(min=1)


class ClipLoss:
    """The loss of one pass of `vc_core.training.trainer.Trainer`."""

    def __init__(self, model: AttributeClip, world: World, settings: ClipTraining) -> None:
        self.model, self.world, self.settings = model, world, settings

    def __call__(self, network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        batch, world = self.settings.trainer.batch, self.world
        clips = sample(world, batch, run.generator)
        colour, shape = clips.colour[: self.settings.images], clips.shape[: self.settings.images]
        positions = torch.randint(world.margin, world.size - world.margin + 1, (len(colour), 2), generator=run.generator)
        images = render(world, colour, shape, positions[:, 0], positions[:, 1])
        tokens = tokenize([*clips.prompts, "", ""])[:, 0]  # [B + 2, L]
        said = torch.cat([clips.said, torch.full((2, 3), UNSAID)])
        penultimate, text = self.model.text_features(tokens)

        pooled, patches = self.model.clip.visual(prepare_images(images, self.model.image_size))
        image = F.normalize(pooled, dim=-1)
        shows = torch.stack([colour, shape], 1)  # [images, 2]
        claims = clips.said[:, :2]
        matches = ((claims[None] == shows[:, None]) | (claims[None] == UNSAID)).all(-1).float()  # [image, sentence]
        logits = self.model.clip.logit_scale.exp().clamp(max=100) * image @ text[:batch].T
        contrast = F.cross_entropy(logits, spread_target(matches)) + F.cross_entropy(logits.T, spread_target(matches.T))

        attributes, right = self._attributes(penultimate, tokens, said)
        read = self.model.read_image(patches.mean(1))
        colours, shapes, position = read.split((len(COLOURS), len(SHAPES), 2), dim=1)
        sight = F.cross_entropy(colours, colour) + F.cross_entropy(shapes, shape)
        sight = sight + 40 * F.mse_loss(position, positions / world.size - 0.5)
        loss = contrast + self.settings.attribute_weight * (attributes + sight)
        distance = (position - positions / world.size + 0.5).norm(dim=1).mean() * world.size  # pixels
        figures = {"contrast": float(contrast.detach()), "read": right}
        return loss, figures | {"sight": float(sight.detach()), "place": float(distance.detach())}

    def _attributes(self, penultimate: Tensor, tokens: Tensor, said: Tensor) -> tuple[Tensor, float]:
        """Cross-entropy of the three attributes at the tokens from the end token on, and the fraction predicted correctly."""
        length = tokens.shape[1]
        after = torch.arange(length)[None] >= tokens.argmax(-1, keepdim=True)  # [B, L]
        read = self.model.read_text(penultimate)[after]  # [n, classes]
        loss, right = read.new_zeros(()), torch.ones(len(read), dtype=torch.bool)
        for index, logits in enumerate(read.split(self.model.counts, dim=1)):
            column = said[:, index]
            target = torch.where(column == UNSAID, self.model.counts[index] - 1, column)
            target = target[:, None].expand(-1, length)[after]
            loss = loss + F.cross_entropy(logits, target)
            right &= logits.argmax(1) == target
        return loss, float(right.float().mean())


class EmbeddingLoss:
    """Which of the world's kinds an image shows, by its embedding and those of sentences; the loss of one pass of the trainer.

    A kind's embedding is the mean over the directions of the wording that says all.
    """

    SCALE = 30.0  # of the cosines

    def __init__(self, model: AttributeClip, world: World, settings: EmbeddingTraining) -> None:
        self.model, self.world, self.settings = model, world, settings
        kinds = [(colour, shape) for colour in range(len(COLOURS)) for shape in range(len(SHAPES))]
        sentences = [sentence(WORDINGS[0][1], *kind, direction) for kind in kinds for direction in range(len(DIRECTIONS))]
        with torch.no_grad():
            embeddings = model.text_features(tokenize(sentences)[:, 0])[1]
        self.kinds = F.normalize(embeddings.unflatten(0, (len(kinds), -1)).mean(1), dim=-1)

    def __call__(self, network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        clips = sample(self.world, self.settings.trainer.batch, run.generator)
        images = render(self.world, clips.colour, clips.shape, *clips.positions[:, 0].unbind(1))
        pooled, _ = self.model.clip.visual(prepare_images(images, self.model.image_size))
        logits = self.SCALE * F.normalize(pooled, dim=-1) @ self.kinds.T
        kind = clips.colour * len(SHAPES) + clips.shape
        return F.cross_entropy(logits, kind), {"right": float((logits.argmax(1) == kind).float().mean())}


@torch.no_grad()
def clear_unused_tokens(clip: CLIP, used: Tensor) -> None:
    """Set the embeddings of all tokens but `used` to zero, so that the file is small and unknown words have no effect."""
    mask = torch.zeros(len(clip.token_embedding.weight), 1)
    mask[used] = 1
    clip.token_embedding.weight *= mask
