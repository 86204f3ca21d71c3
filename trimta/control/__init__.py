"""Operations on a running server, and the control socket by which other processes ask for them."""
