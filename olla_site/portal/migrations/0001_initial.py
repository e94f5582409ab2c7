"""The portal's permissions, and the groups that have them."""

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations, models

from olla_site.portal.groups import make_groups


def make_first_groups(apps, schema_editor):
    # Permissions are otherwise made after all migrations, too late to be given to a group here.
    for label in ("portal", "endpoints"):
        create_permissions(real_apps.get_app_config(label), verbosity=0, using=schema_editor.connection.alias)
    make_groups(apps.get_model("auth", "Group"), apps.get_model("auth", "Permission"))


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("endpoints", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Portal",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
            ],
            options={
                "permissions": [
                    ("view", "Look at the portal"),
                    ("operate", "Drain, resume, disable and probe endpoints"),
                    ("try", "Send requests from the playground"),
                    ("administer", "Add endpoints and change rules"),
                ],
                "managed": False,
                "default_permissions": (),
            },
        ),
        migrations.RunPython(make_first_groups, migrations.RunPython.noop),
    ]
