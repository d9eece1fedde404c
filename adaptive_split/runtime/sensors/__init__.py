"""Where power, heat, charge and load are read: one small file per source."""
