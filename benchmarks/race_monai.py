"""MONAI's BasicUNet with MONAI's transforms, loss and sliding window.

    python benchmarks/race_monai.py JOB

Numbers are those of MONAI's tutorial 2d_segmentation/torch/unet_training_dict.py: intensities scaled to 0…1, two
images a batch with four crops of 96 pixels a side each, half of them around foreground, quarter turns, Adam at 1e-3,
sliding window of 96 with four tiles at once. Flips and noise are MONAI's, too, and DiceCELoss for its DiceLoss because
there are more classes than one; features of BasicUNet are its defaults. Images are cached, as MONAI advises.
"""

import sys
import warnings

import common  # noqa: F401  before torch: it settles how threads wait

# isort: split
import torch
from monai.data import CacheDataset, DataLoader, list_data_collate
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import (
    Compose,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    ScaleIntensity,
    ScaleIntensityd,
    SpatialPadd,
)
from monai.utils import set_determinism

from race_data import Clock, Job

CROP = (96, 96)
BOTH = ["image", "label"]


def main() -> None:
    job = Job.read(sys.argv[1])
    warnings.filterwarnings("ignore")  # its own, about its own
    set_determinism(job.seed)
    clock = Clock(job.seconds)
    data = [{"image": job.image(image), "label": job.target(mask)[None]} for _, image, mask in job.train]
    moves = Compose(
        [
            ScaleIntensityd("image"),
            SpatialPadd(BOTH, CROP, mode="reflect"),
            RandCropByPosNegLabeld(BOTH, label_key="label", spatial_size=CROP, pos=1, neg=1, num_samples=4),
            RandFlipd(BOTH, prob=0.5, spatial_axis=0),
            RandFlipd(BOTH, prob=0.5, spatial_axis=1),
            RandRotate90d(BOTH, prob=0.5),
            RandGaussianNoised("image", prob=0.1, std=0.05),
        ]
    )
    images = CacheDataset(data, moves, num_workers=1, progress=False)
    loader = DataLoader(images, batch_size=2, shuffle=True, num_workers=0, collate_fn=list_data_collate)
    model = BasicUNet(spatial_dims=2, in_channels=job.channels, out_channels=job.classes)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    batches = iter(loader)
    model.train()
    for _ in clock.ticks():
        batch = next(batches, None)
        if batch is None:  # an epoch is over
            batches = iter(loader)
            batch = next(batches)
        optimiser.zero_grad()
        loss = loss_of(model(batch["image"].as_tensor()), batch["label"].as_tensor())
        loss.backward()
        optimiser.step()
    model.eval()
    scale = ScaleIntensity()
    with torch.no_grad():
        for name, path, _ in job.val:
            image = torch.as_tensor(scale(job.image(path)))[None]
            found = sliding_window_inference(image, CROP, 4, model)
            job.keep(name, torch.as_tensor(found)[0].argmax(0).numpy())
    job.finish(clock)


if __name__ == "__main__":
    main()
