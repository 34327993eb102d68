"""Networks: the SAM backbones that the recipes adapt, their heads, and networks from scratch."""
