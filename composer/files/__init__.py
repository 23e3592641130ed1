"""Files: strict JSON, atomic files and folders, records beside results, heads of safetensors files, CSV tables."""
