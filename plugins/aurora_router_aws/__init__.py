"""Logins to Aurora as AWS and containers give them. AWS's need the extra ``aws``, imported when first used."""

from aurora_router_aws.env import Environment
from aurora_router_aws.iam import IamTokens
from aurora_router_aws.secret import Secret

__all__ = ["Environment", "IamTokens", "Secret"]
