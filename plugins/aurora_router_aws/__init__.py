"""Logins to Aurora as AWS gives them: IAM tokens. Needs the extra ``aws``, which is imported when it is first used."""

from aurora_router_aws.iam import IamTokens

__all__ = ["IamTokens"]
