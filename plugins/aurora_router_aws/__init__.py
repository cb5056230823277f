"""Logins to Aurora as AWS gives them. Needs the extra ``aws``, which is imported when it is first used."""

from aurora_router_aws.iam import IamTokens
from aurora_router_aws.secret import Secret

__all__ = ["IamTokens", "Secret"]
