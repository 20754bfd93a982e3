"""PMNet, the Phasor Memory Network (Goo, Yun, Jung, arXiv 2605.13370)."""
