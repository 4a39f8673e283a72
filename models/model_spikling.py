"""`ModelSpikling` under KAIR's naming scheme, `models/model_<name>.py`; defined in `models/model_vrt.py`."""

from models.model_vrt import ModelSpikling

__all__ = ["ModelSpikling"]
