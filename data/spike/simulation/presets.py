"""Simulators of other projects, by name; with the same charge at the start they give the same bits.

    sensor = PRESETS["spikling"].sensor((250, 400), rng)
    spikes = sensor.step(gray)                                 # (T, h, w) uint8 gray, since its full scale is 255

    name            charge per frame       fires at  reset     start         rate of white   used for
    v2s             gray / 255             2         subtract  U(0, 2)       0.5             Spk-GoPro, Spk-X4K1000FPS
    v2s5            gray / 255             5         subtract  U(0, 5)       0.2             SpikeCV video_to_spike
    spikling        gray                   255       subtract  U(0, 255)     1               spikling
    spcs            gray                   256       subtract  0             0.996           SPCS
    spcs400         gray                   400       subtract  0             0.6375          SPCS for SPIFT
    spikecv_image   gray / 2               1         zero      0             0.5             SpikeCV img_to_spike
    spikingsim      250 times 0.0079 gray  2         zero      random frame  about 1         SpikingSIM

SpikingSIM integrates one frame of random light first; that frame is not returned here. All noise is that of
data/spike/simulation/noise.py: SpikingSIM adds a spurious spike in one of 140 pixels on average (`spurious` 1 / 140).
Sources: chenkang455/S-SDM `v2s_interface`, Zyj061/SpikeCV `convert_video`, `convert_img`, lshpku/spikling
`preprocess`, Acnext/Spiking-Camera-Simulator-SPCS `v2s`, Evin-X/SpikingSIM `sim`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.spike.simulation.noise import PixelNoise, SensorNoise
from data.spike.simulation.simulate import IntegrateAndFire, Reset, Start

SPIKINGSIM_GAIN = (2 / 10.0**7) * (1.09 * 10.0**-13) / ((1.83 * 10.0**-4) * (15 * 10.0**-15))
"""Charge per tick of 2 clock cycles at 10 MHz: quantum efficiency 1.09e-13 over conversion 1.83e-4 and 15 fF."""


@dataclass(frozen=True)
class SensorModel:
    """How a simulator's pixels integrate and fire; see `IntegrateAndFire`.

    Attributes:
        start: charge before the first frame: U(0, threshold), 0, or the charge after a frame of random light.
    """

    threshold: float = 2.0
    gain: float = 1.0
    reset: Reset = "subtract"
    ticks: int = 1
    full_scale: float = 1.0
    start: Literal["random", "zero", "random frame"] = "random"

    @property
    def spike_threshold(self) -> float:
        """The stream's `spike_threshold`: intensity in [0, 1] = firing rate x `spike_threshold`."""
        return self.threshold / (self.gain * self.ticks * self.full_scale)

    def sensor(
        self, shape: tuple[int, int], rng: np.random.Generator, noise: SensorNoise | None = None
    ) -> IntegrateAndFire:
        """A sensor of this kind.

        Args:
            shape: (h, w).
            rng: draws the charge at the start, then the noise.
        """
        start: Start = rng if self.start == "random" else "zero"
        sensor = IntegrateAndFire(
            shape,
            self.threshold,
            start,
            gain=self.gain,
            reset=self.reset,
            ticks=self.ticks,
            full_scale=self.full_scale,
        )
        if self.start == "random frame":
            sensor.step(rng.random((1, *shape)) * self.full_scale)
        if noise is not None:
            sensor.noise = PixelNoise(noise, shape, rng)
        return sensor


PRESETS: dict[str, SensorModel] = {
    "v2s": SensorModel(2.0),
    "v2s5": SensorModel(5.0),
    "spikling": SensorModel(255.0, full_scale=255.0),
    "spcs": SensorModel(256.0, full_scale=255.0, start="zero"),
    "spcs400": SensorModel(400.0, full_scale=255.0, start="zero"),
    "spikecv_image": SensorModel(1.0, gain=0.5, reset="zero", start="zero"),
    "spikingsim": SensorModel(2.0, gain=SPIKINGSIM_GAIN, reset="zero", ticks=250, start="random frame"),
}
