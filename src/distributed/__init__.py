"""Training on many processes. torchrun starts them, PyTorch's DDP and FSDP2 connect them: see README.md."""
