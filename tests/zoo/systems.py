"""The table of systems that golden files are held against, family by family: one line each."""

from classical_systems import CLASSICAL_SYSTEMS
from decaying_systems import DECAYING_SYSTEMS
from delta_systems import DELTA_SYSTEMS
from phase_systems import PHASE_SYSTEMS
from regression_systems import REGRESSION_SYSTEMS
from rwkv_systems import RWKV_SYSTEMS

SYSTEMS = (
    *DELTA_SYSTEMS,
    *DECAYING_SYSTEMS,
    *CLASSICAL_SYSTEMS,
    *PHASE_SYSTEMS,
    *REGRESSION_SYSTEMS,
    *RWKV_SYSTEMS,
)
