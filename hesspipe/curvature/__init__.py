"""The Hessian H, the generalized Gauss-Newton matrix G and the residual R of an objective."""
