"""The encoders: which layers they have, their weights, and their convolutions as quick as each device can do them."""
